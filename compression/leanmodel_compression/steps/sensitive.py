"""Which decoder layers rounding hurts most: each is rounded alone, and the loss is compared on the same rows.

Layers differ: in most models the first and the last ones lose many times what a middle one does (per-layer sensitivity:
Dong et al. 2019, HAWQ, arXiv 1905.03696, by curvature; measured here, as the models are small enough to be asked).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from leanmodel_api.errors import Issue
from leanmodel_api.search import LayerEffect

from .. import checkpoint
from ..batches import Row
from ..shapes import Linear, ModelShape, forward_flops, targeted
from . import grid
from .protocol import Place, Progress, Task, samples


def spared(model: Any, task: Task, place: Place, group: int | None) -> tuple[Task, dict[str, float]]:
    """Return the step with its most sensitive layers among those that it ignores, and what they would have cost.

    Args:
        model: in float32; it is as before afterwards.
        task: a Quantize step that asks for ``ignore_sensitive``.
        place: where measured losses are kept, so that a killed run goes on, and progress is told.
        group: columns that share a scale, None for whole rows.
    """
    from .. import figures

    rows = figures.first_rows(samples(task))
    folder = place.scratch / "sensitive" / place.fingerprint[:16]
    kept = checkpoint.latest(folder)
    known: dict[str, float] = dict(kept.state["losses"]) if kept is not None else {}

    def note(done: float, total: float, words: str) -> None:
        checkpoint.save(folder, int(done), {}, {"losses": known})
        place.progress(done, 2 * total, words)

    effects = list(rises(model, task.shape, task.spec, rows, group, note, known))
    worst = sorted(effects, key=lambda one: (-one.rise, one.layer))[: task.spec.ignore_sensitive]
    names = [f"re:{re.escape(task.shape.decoder.layer(one.layer))}[.].*" for one in worst]
    spec = task.spec.model_copy(update={"ignore": [*task.spec.ignore, *names]})
    figure = {f"riseOfLayer{one.layer}": one.rise for one in worst}
    return replace(task, spec=spec), figure


def behind(place: Place, layers: int) -> Place:
    """Return the place for what comes after the measuring, which was half of the progress."""
    return replace(
        place, progress=lambda done, total, words: place.progress(layers + done, layers + total, words)
    )


def issues(task: Task) -> list[Issue]:
    """Return what keeps layers from being measured, and that none would be left to quantise."""
    wanted, field = task.spec.ignore_sensitive, f"{task.field}.ignoreSensitive"
    if wanted is None:
        return []
    if task.rows is None or not task.rows.train:
        return [Issue(field, f"found {wanted}, and there are no rows to measure layers on", "remove it")]
    there = len(members(task.shape, task.spec))
    if 0 < there <= wanted:
        found = f"found {wanted} of {there} decoder layers that are to be quantised"
        return [Issue(field, found, f"write {there - 1} or fewer, or leave the step out")]
    return []


def flops(task: Task) -> float:
    """Return the operations of measuring: one pass over the rows for each layer, and one for none."""
    from .. import figures

    if task.spec.ignore_sensitive is None:
        return 0.0
    rows = figures.first_rows(samples(task))
    tokens, answers = sum(len(row.ids) for row in rows), sum(row.answers for row in rows)
    return (len(members(task.shape, task.spec)) + 1) * forward_flops(task.shape, tokens, answers)


def left_for(task: Task) -> list[Linear]:
    """Return the linear layers that will be quantised, before it is known which are spared: the first ones are taken."""
    meant = targeted(task.shape, task.spec.targets, task.spec.ignore)
    spare = list(members(task.shape, task.spec).values())[: task.spec.ignore_sensitive or 0]
    names = {one.name for linears in spare for one in linears}
    return [one for one in meant if one.name not in names]


def rises(
    model: Any,
    shape: ModelShape,
    spec: Any,
    rows: Sequence[Row],
    group: int | None,
    progress: Progress,
    known: dict[str, float] | None = None,
) -> Iterator[LayerEffect]:
    """Yield what rounding one decoder layer to nearest does to the loss, layer by layer.

    Args:
        model: in float32.
        shape: the model's.
        spec: the Quantize step: scheme, targets and what it ignores. A better algorithm would lose less; which layers
            mind most is what this tells.
        rows: what the loss is taken on; all of them.
        group: columns that share a scale, None for whole rows.
        progress: told after each layer.
        known: losses of an interrupted run by layer (and ``whole``); new ones are added.
    """
    found = {} if known is None else known
    if "whole" not in found:
        found["whole"] = loss(model, rows)
    for index, linears in members(shape, spec).items():
        if str(index) not in found:
            with on_grid(model, linears, spec.scheme, group):
                found[str(index)] = loss(model, rows)
        progress(index + 1, shape.layers, f"layer {index} alone in {spec.scheme}")
        yield LayerEffect(layer=index, loss=found[str(index)], rise=found[str(index)] - found["whole"])


def members(shape: ModelShape, spec: Any) -> Mapping[int, list[Linear]]:
    """Return the linear layers that a step means, by decoder layer; decoder layers without one are left out."""
    meant = targeted(shape, spec.targets, spec.ignore)
    found = {
        index: [one for one in meant if one.name.startswith(f"{shape.decoder.layer(index)}.")]
        for index in range(shape.layers)
    }
    return {index: linears for index, linears in found.items() if linears}


def loss(model: Any, rows: Sequence[Row]) -> float:
    """Return the loss per answer token of the rows."""
    from .. import figures

    return figures.validation(model, rows, 0)["validationLoss"]


@contextmanager
def on_grid(model: Any, linears: Sequence[Linear], scheme: str, group: int | None) -> Iterator[None]:
    """Round these layers' weights (W8A8: and what goes into them) within the block."""
    before, hooks = {}, []
    for linear in linears:
        module = model.get_submodule(linear.name)
        before[linear.name] = module.weight.data
        module.weight.data = grid.fake(module.weight.data, grid.BITS[scheme], group)
        if scheme == "W8A8":
            hooks.append(module.register_forward_pre_hook(_fake_input))
    try:
        yield
    finally:
        for name, weight in before.items():
            model.get_submodule(name).weight.data = weight
        for hook in hooks:
            hook.remove()


def _fake_input(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (grid.fake_tokens(inputs[0]), *inputs[1:])
