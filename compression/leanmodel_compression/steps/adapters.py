"""Low-rank adapters that leave zeros alone: what is added to a layer's weight is zero where the weight is.

A plain LoRA update (arXiv 2106.09685) is dense, and merging it fills what pruning emptied. Here the update is
masked in training as it will be when merged (MaskLoRA of PERP, arXiv 2312.15230), so both give the same answers.
On a layer without zeros it is plain LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# The update is scaled by alpha / rank, and alpha is twice the rank, as in Finetune.
SCALE = 2.0


@dataclass
class Adapter:
    """One layer's update.

    Attributes:
        layer: the linear layer, its weight rows × columns.
        inner: rank × columns.
        outer: rows × rank; zero at first, so that nothing changes before the training.
    """

    layer: Any
    inner: Any
    outer: Any


def attach(model: Any, names: Iterable[str], rank: int, seed: int) -> dict[str, Adapter]:
    """Put adapters beside the named linear layers of a frozen model.

    Args:
        model: in float32; its layers compute with the update from now on.
        names: the layers' names in the model.
        rank: rank of every update.
        seed: of the inner halves.

    Returns:
        The adapters by the layer's name.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    modules, found = dict(model.named_modules()), {}
    multiply = _multiply()
    for name in names:
        layer = modules[name]
        rows, columns = layer.weight.shape
        bound = 1 / math.sqrt(columns)
        # Drawn on the processor: a seed gives the same numbers on every device.
        inner = torch.empty(rank, columns).uniform_(-bound, bound, generator=draw).to(layer.weight.device)
        outer = torch.zeros(rows, rank, device=layer.weight.device)
        adapter = Adapter(layer, torch.nn.Parameter(inner), torch.nn.Parameter(outer))

        def forward(given: Any, adapter: Adapter = adapter) -> Any:
            made = multiply(given, adapter.layer.weight, adapter.inner, adapter.outer)
            return made if adapter.layer.bias is None else made + adapter.layer.bias

        layer.forward = forward
        found[name] = adapter
    return found


def parameters(adapters: dict[str, Adapter]) -> dict[str, Any]:
    """Return what is trained, by name."""
    inner = {f"{name}.inner": adapter.inner for name, adapter in adapters.items()}
    return inner | {f"{name}.outer": adapter.outer for name, adapter in adapters.items()}


def merge(adapters: dict[str, Adapter]) -> None:
    """Add the updates to the weights, and take the adapters off."""
    import torch

    with torch.no_grad():
        for adapter in adapters.values():
            adapter.layer.weight.data = updated(adapter.layer.weight, adapter.inner, adapter.outer)
            del adapter.layer.forward


def updated(weight: Any, inner: Any, outer: Any) -> Any:
    """Return a weight with its update (rows × columns), zero where the weight is zero."""
    return (outer @ inner).mul_(SCALE).masked_fill_(weight == 0, 0).add_(weight)


def _multiply() -> Any:
    """Return the product of inputs and updated weight, which is made anew going back instead of being kept."""
    import torch

    class Masked(torch.autograd.Function):  # type: ignore[misc]
        """Inputs (… × columns) to outputs (… × rows)."""

        @staticmethod
        def forward(context: Any, given: Any, weight: Any, inner: Any, outer: Any) -> Any:
            context.save_for_backward(given, weight, inner, outer)
            return torch.nn.functional.linear(given, updated(weight, inner, outer))

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            given, weight, inner, outer = context.saved_tensors
            back = gradient @ updated(weight, inner, outer) if context.needs_input_grad[0] else None
            wide = gradient.flatten(0, -2).T @ given.flatten(0, -2)
            wide.mul_(SCALE).masked_fill_(weight == 0, 0)
            return back, None, outer.T @ wide, wide @ inner.T

    return Masked.apply
