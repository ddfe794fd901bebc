"""Heal: a short training after pruning, on the teacher's logits and the data's own answers. Zeros stay zeros.

It is Distill with two differences: what is trained may be low-rank adapters, which are merged at the end; and a
weight that is zero is not trained. Its gradient is zero, so that AdamW, which decays nothing here, never moves it.
With ``pruneTo`` more and more weights become zero on the way (see gradual).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.errors import Issue
from leanmodel_api.step_rules import heal_issues

from .. import memory
from ..families import HEAD
from ..shapes import Linear
from . import adapters, aware, gradual, movement, training
from .distill import Distillation, finish, learn, to_train
from .protocol import Outcome, Place, StepError, Task, Work, checked


class Healing(Distillation):
    """Trains what is left, where it is not zero."""

    name = "Heal"
    version = 1

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All but what changes only the way."""
        found = training.settings(spec)
        if spec.method == "Full":
            found.pop("lora_rank", None)
        return found

    def issues(self, task: Task) -> list[Issue]:
        """As distilling, and whether weights can go meanwhile."""
        return [*heal_issues(task.spec, task.field), *super().issues(task)]

    def trained(self, task: Task) -> int:
        """Return the parameters that are trained: the adapters', or all but the token table."""
        if task.spec.method == "Full":
            return super().trained(task) + scored(task)
        widths = sum(linear.columns + linear.rows for linear in layers(task))
        return int(task.spec.lora_rank * widths)

    def memory(self, task: Task) -> int:
        """As distilling, with the largest layer's update and gradient for a moment, and a mask of what is zero.

        Adapters make every layer's updated weights anew, forward and back, between activations that stay: the heap was
        measured to keep room for both.
        """
        sizes = [linear.columns * linear.rows for linear in layers(task)]
        beside = memory.FLOAT * 3 * max(sizes, default=0) + sum(sizes)
        if task.spec.method == "LoRA":
            beside = memory.FLOAT * 2 * sum(sizes)
        # A score is held beside its weight, and a byte that says whether it is out.
        scores = (memory.FLOAT + 1) * scored(task)
        return checked(task, task.shape, super().memory(task) + beside + scores)

    def work(self, task: Task) -> Work:
        """As distilling; an adapter's update is made twice for each micro-batch, which is felt when those are small."""
        found = super().work(task)
        weights = sum(linear.columns * linear.rows for linear in layers(task))
        passes = training.passes(task)
        if task.spec.method == "Full":
            pruning = gradual.BYTES * weights if task.spec.prune_to is not None else 0.0
            if scored(task):
                # Chosen anew after every step.
                pruning *= max(1.0, training.total_steps(task) / gradual.PRUNINGS)
            return replace(found, bytes=found.bytes + 4.0 * weights * passes + pruning)
        flops = found.flops + 8.0 * task.spec.lora_rank * weights * passes
        return replace(found, flops=flops, bytes=found.bytes + 12.0 * weights * passes)

    def run(self, task: Task, place: Place) -> Outcome:
        """Train, merge, see that every zero is still there, and write bf16."""
        beside: dict[str, adapters.Adapter] = {}
        zeros: dict[str, Any] = {}
        going = pruner(task.spec)

        def choose(model: Any) -> dict[str, Any]:
            named = dict(model.named_parameters())
            for linear in layers(task):
                weight = named[f"{linear.name}.weight"]
                if bool((weight == 0).any()):
                    zeros[linear.name] = weight == 0
            if task.spec.method == "LoRA":
                names = [linear.name for linear in layers(task)]
                beside.update(adapters.attach(model, names, task.spec.lora_rank, task.seed))
                return adapters.parameters(beside)
            found = to_train(model)
            if going is not None:
                return found | going.begin(model, [linear.name for linear in layers(task)], zeros)
            for name, mask in zeros.items():
                freeze(named[f"{name}.weight"], mask)
            return found

        student = learn(task, place, choose, going.after_step if going is not None else None)
        adapters.merge(beside)
        if going is not None:
            going.finish()
        lost = [
            name for name, mask in zeros.items() if bool(student.model.get_submodule(name).weight[mask].any())
        ]
        if lost:
            raise StepError(Issue(task.field, f"{lost[0]} lost zeros", "report this as a defect"))
        empty = sum(int(mask.sum()) for mask in zeros.values())
        if going is not None:
            empty = sum(
                int((student.model.get_submodule(one.name).weight == 0).sum()) for one in layers(task)
            )
        share = empty / sum(linear.columns * linear.rows for linear in layers(task))
        modules = {name.rpartition(".")[0] for name in student.trained}
        finish(student.model, place)
        done = student.done
        return Outcome(
            len(modules),
            describe(task.spec, len(training.chosen(task)), done.steps, share),
            done.resumed_at,
            {**student.figures(), "zeroShare": share},
        )


def pruner(spec: Any) -> gradual.Pruner | None:
    """Return what takes weights while they are trained, or None."""
    if spec.prune_to is None:
        return None
    end = number(spec.prune_to)
    return movement.Movement(end) if spec.prune_by == "Movement" else gradual.Gradual(end)


def scored(task: Task) -> int:
    """Return the weights beside which a score is trained."""
    if task.spec.prune_to is None or task.spec.prune_by != "Movement":
        return 0
    return sum(linear.columns * linear.rows for linear in layers(task))


def layers(task: Task) -> list[Linear]:
    """Return the linear layers whose zeros are kept, and beside which adapters stand: all but the head."""
    return [linear for linear in task.shape.linears() if linear.name != HEAD]


def freeze(parameter: Any, mask: Any) -> None:
    """Let no gradient reach the weights under the mask."""
    parameter.requires_grad_(True)
    parameter.register_hook(lambda gradient: gradient.masked_fill(mask, 0))


def describe(spec: Any, rows: int, steps: int, share: float) -> str:
    """Return the settings in short."""
    how = f"LoRA rank {spec.lora_rank}" if spec.method == "LoRA" else "Full"
    kept = f", {100 * share:.1f}% of the weights kept at zero" if share else ""
    if spec.prune_to is not None:
        how += f", by {spec.prune_by}" if spec.prune_by else ""
        kept = f", pruned on the way until {100 * share:.1f}% of the weights were zero"
    return (
        f"{how}, label weight {spec.label_weight}, {rows} rows, {steps} optimiser steps, "
        f"learning rate {spec.learning_rate}{kept}{aware.describe(spec)}"
    )
