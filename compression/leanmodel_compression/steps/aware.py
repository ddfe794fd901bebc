"""Quantisation-aware training inside Distill and Heal: layers compute as they will once they are quantised.

Going forward a layer's weight is put on the grid of the Quantize step that follows (see grid), and for W8A8 what
goes into it too; going back the rounding counts as if it were not there (the straight-through estimator,
arXiv 1308.3432, as in arXiv 1712.05877 and LLM-QAT, arXiv 2305.17888). What is stored are the float weights, in
bf16, on which the training's grid was made: rounding them to nearest gives the integers that were trained with.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from leanmodel_api.errors import Issue
from leanmodel_api.steps import Quantize

from .. import memory
from ..shapes import Linear, ModelShape, targeted
from . import grid
from .protocol import Task
from .quantize import group_issues, group_size

# Bytes that one pass over a weight's grid moves in float32: rounding to bf16, the largest, dividing, rounding, back.
GRID_BYTES = 40.0


def planned(spec: Any) -> Quantize | None:
    """Return the Quantize that a training step prepares for, or None: it prepares for none."""
    scheme = getattr(spec, "quantization_aware", None)
    if scheme is None:
        return None
    return Quantize(type="Quantize", scheme=scheme, group_size=spec.group_size)


def layers(spec: Any, shape: ModelShape) -> list[Linear]:
    """Return the layers that compute on their grid."""
    step = planned(spec)
    return targeted(shape, step.targets, step.ignore) if step is not None else []


def issues(task: Task) -> list[Issue]:
    """Return why the layers have no such grid."""
    step, linears = planned(task.spec), layers(task.spec, task.shape)
    if step is None or step.scheme != "W4A16":
        return []
    return group_issues(step, task.field, linears)


def held_bytes(task: Task) -> int:
    """Return what is held for the grids: every layer's weight on its grid until the backward pass, one thrice while it is made."""
    sizes = [linear.columns * linear.rows for linear in layers(task.spec, task.shape)]
    return memory.FLOAT * (sum(sizes) + 3 * max(sizes, default=0))


def moved_bytes(task: Task, passes: float) -> float:
    """Return the bytes that making the grids moves, forward and back, over so many micro-batches."""
    weights = sum(linear.columns * linear.rows for linear in layers(task.spec, task.shape))
    return 2 * GRID_BYTES * weights * passes


def attach(model: Any, spec: Any, shape: ModelShape) -> list[str]:
    """Let a model's layers compute on their grid from now on; return their names.

    Args:
        model: in float32.
        spec: the training step.
        shape: of the model.
    """
    step = planned(spec)
    if step is None:
        return []
    group = group_size(step, shape) if step.scheme == "W4A16" else None
    names = [linear.name for linear in layers(spec, shape)]
    multiply = _multiply(grid.BITS[step.scheme], group, step.scheme == "W8A8")
    modules = dict(model.named_modules())
    for name in names:
        layer = modules[name]

        def forward(given: Any, layer: Any = layer) -> Any:
            made = multiply(given, layer.weight)
            return made if layer.bias is None else made + layer.bias

        layer.forward = forward
    return names


def detach(model: Any, names: Iterable[str]) -> None:
    """Let the layers compute with their float weights again."""
    modules = dict(model.named_modules())
    for name in names:
        del modules[name].forward


def describe(spec: Any) -> str:
    """Return what a report says of it, after what it says of the training."""
    scheme = getattr(spec, "quantization_aware", None)
    return f", aware of {scheme}" if scheme else ""


def _multiply(bits: int, group: int | None, tokens: bool) -> Any:
    """Return the product of inputs and a weight on their grids, which are made anew going back instead of being kept."""
    import torch

    class Rounded(torch.autograd.Function):  # type: ignore[misc]
        """Inputs (… × columns) to outputs (… × rows)."""

        @staticmethod
        def forward(context: Any, given: Any, weight: Any) -> Any:
            context.save_for_backward(given, weight)
            seen = grid.fake_tokens(given) if tokens else given
            return torch.nn.functional.linear(seen, grid.fake(weight, bits, group))

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            given, weight = context.saved_tensors
            back = gradient @ grid.fake(weight, bits, group) if context.needs_input_grad[0] else None
            if not context.needs_input_grad[1]:
                return back, None
            seen = grid.fake_tokens(given) if tokens else given
            return back, gradient.flatten(0, -2).T @ seen.flatten(0, -2)

    return Rounded.apply
