"""Finetune: adapt the large model to a data set, all weights, the last layers, or low-rank adapters.

LoRA is arXiv 2106.09685, through peft, merged at the end: what comes out is an ordinary model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from leanmodel_api.errors import Issue

from .. import devices, hf, memory
from ..shapes import ModelShape, forward_flops
from . import stopping, training
from .protocol import Outcome, Place, Task, WithRows, Work, checked


class Finetuning(WithRows):
    """Trains on answers alone: the prompt is given, the answer and its end are learned."""

    name = "Finetune"
    version = 1
    libraries = ("torch", "transformers", "peft")
    teaches = False

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All but what changes only the way."""
        found = training.settings(spec)
        if spec.method == "Full":
            found.pop("lora_rank", None)
        return found

    def issues(self, task: Task) -> list[Issue]:
        """Check the data, the numbers and the layers that are named."""
        found = training.issues(task)
        layers = task.spec.train_layers
        if layers is not None and layers > task.shape.layers:
            found.append(
                Issue(
                    f"{task.field}.trainLayers",
                    f"{layers}, and the model has {task.shape.layers} layers",
                    f"write at most {task.shape.layers}, or leave it out to train all weights",
                )
            )
        return found

    def after(self, task: Task) -> ModelShape:
        """The model keeps its shape."""
        return task.shape

    def memory(self, task: Task) -> int:
        """Weights, gradients and moments of what is trained, and the largest micro-batch."""
        tokens, answers = training.micro(task)
        need = memory.training_bytes(
            task.shape, trained_parameters(task), tokens, answers, trained_layers(task)
        )
        return checked(task, task.shape, need)

    def disk(self, task: Task) -> int:
        """The artifact, and two checkpoints while one replaces the other."""
        trained = trained_parameters(task)
        return 2 * task.shape.parameters + 2 * 12 * trained + stopping.disk(task, trained)

    def work(self, task: Task) -> Work:
        """Forward through all layers, backward (twice that) through the trained ones."""
        tokens, answers = training.total_tokens(task), training.total_answers(task)
        forward = forward_flops(task.shape, tokens, answers)
        backward = forward_flops(task.shape, tokens, answers, trained_layers(task))
        share = 1.0 if task.spec.method == "LoRA" else 2.0
        traffic = training.traffic(task, trained_parameters(task))
        flops = forward + share * backward + training.looking_flops(task, task.shape)
        return Work(flops=flops, bytes=traffic + 20.0 * task.shape.parameters, seconds=3.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Train, merge, and write bf16."""
        import torch
        import torch.nn.functional as functional

        model = hf.load_model(place.source)
        tokenizer = hf.load_tokenizer(place.source)
        rows, pad = training.chosen(task), int(tokenizer.eos_token_id)
        adapted = add_adapters(model, task) if task.spec.method == "LoRA" else None
        trained = adapters_of(model) if adapted is not None else to_train(model, task)

        def loss_on(rows: Any, part: Any) -> Any:
            ids, where, columns, wanted = training.collate(rows, part, pad, devices.of(model))
            logits = training.answer_logits(model, ids, where, columns)
            return functional.cross_entropy(logits, wanted, reduction="sum")

        modules = len({name.rpartition(".")[0] for name in trained})
        held = task.rows.validation if task.rows is not None else ()
        judge = stopping.mean_loss(model, held, partial(loss_on, held))
        done = training.fit(task, place, trained, partial(loss_on, rows), model.train, judge=judge)
        with torch.no_grad():
            if adapted is not None:
                model = adapted.merge_and_unload()
        model.eval()
        hf.save_model(model, place.target)
        hf.copy_tokenizer(place.source, place.target)
        return Outcome(
            modules,
            describe(task.spec, len(rows), done.steps),
            done.resumed_at,
            done.figures(),
        )


def describe(spec: Any, rows: int, steps: int) -> str:
    """Return the settings in short."""
    what = "all weights" if spec.train_layers is None else f"last {spec.train_layers} layers"
    how = f"LoRA rank {spec.lora_rank}" if spec.method == "LoRA" else "Full"
    return f"{how}, {what}, {rows} rows, {steps} optimiser steps, learning rate {spec.learning_rate}"


def trained_layers(task: Task) -> int:
    """Return the layers that autograd goes through."""
    return int(task.spec.train_layers or task.shape.layers)


def trained_parameters(task: Task) -> int:
    """Return the parameters that are trained."""
    spec, shape = task.spec, task.shape
    layers = trained_layers(task)
    if spec.method == "LoRA":
        # The projections of the first layer stand for those of every layer.
        first = shape.linears()[: len(shape.decoder.projections)]
        widths = sum(linear.columns + linear.rows for linear in first)
        return layers * int(spec.lora_rank) * widths
    tables = shape.embedding_parameters + shape.position_parameters
    return (
        layers * shape.layer_parameters + shape.norm_parameters + (tables if spec.train_layers is None else 0)
    )


def to_train(model: Any, task: Task) -> dict[str, Any]:
    """Return the weights that are trained: all, or those of the last layers and the final norm."""
    layers = task.spec.train_layers
    if layers is None:
        return dict(model.named_parameters())
    first = task.shape.layers - layers
    family = task.shape.decoder
    last = tuple(f"{family.layer(index)}." for index in range(first, task.shape.layers))
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.startswith((*last, f"{family.norm}."))
    }


def add_adapters(model: Any, task: Task) -> Any:
    """Put seeded low-rank adapters beside the projections of the layers that are trained."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(task.seed)
    first = task.shape.layers - trained_layers(task)
    config = LoraConfig(
        r=task.spec.lora_rank,
        lora_alpha=2 * task.spec.lora_rank,
        lora_dropout=0.0,
        target_modules=[one.name for one in task.shape.decoder.projections],
        layers_to_transform=list(range(first, task.shape.layers)),
        layers_pattern=task.shape.decoder.layers.rpartition(".")[2],
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def adapters_of(model: Any) -> dict[str, Any]:
    """Return the adapters' parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}
