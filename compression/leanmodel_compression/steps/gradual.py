"""Pruning during a training: the smallest weights go bit by bit, most of them early, when many are left to make up.

The share of zeros follows Zhu and Gupta (arXiv 1710.01878): after t of T steps it is s · (1 - (1 - t/T)³); T is three
quarters of the training, so that its end only mends. A weight that went stays zero: its gradient is masked, and its
first moment, which would go on pushing it, is set to zero with it. So nothing has to be remembered beside weights and
moments, and a killed training goes on to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from . import masks

PRUNINGS = 20
"""How often weights go, at most."""
UNTIL = 0.75
"""Share of the training after which no more go."""
# Bytes that all prunings move for one weight: its size, a selection among them, the mask.
BYTES = 60.0 * PRUNINGS


def share_after(step: int, total: int, end: float) -> float:
    """Return the share of zeros that a layer should have after ``step`` of ``total`` optimiser steps."""
    last = max(1, round(UNTIL * total))
    left = max(0.0, 1 - step / last)
    return end * (1 - left**3)


def due(step: int, total: int) -> bool:
    """Say whether weights go after this step."""
    last = max(1, round(UNTIL * total))
    return step <= last and (step == last or step % max(1, last // PRUNINGS) == 0)


class Pruner(Protocol):
    """Sets weights to zero while they are trained."""

    def begin(self, model: Any, names: Iterable[str], zeros: Mapping[str, Any]) -> dict[str, Any]:
        """Take the model's layers of these names; return what is trained besides, by name."""

    def after_step(self, step: int, total: int, optimiser: Any) -> None:
        """Do what is to be done after ``step`` optimiser steps; again, with the same outcome, after a resumption."""

    def finish(self) -> None:
        """Leave an ordinary model with its zeros."""


class Gradual:
    """Takes the smallest weights of some layers, more and more of them."""

    def __init__(self, end: float):
        """Take the share of zeros that each layer has in the end."""
        self.end, self._weights = end, list[Any]()

    def begin(self, model: Any, names: Iterable[str], zeros: Mapping[str, Any]) -> dict[str, Any]:
        """Take the layers from which weights go, and let no gradient reach what is zero; nothing else is trained."""
        for name in names:
            weight = model.get_submodule(name).weight
            weight.requires_grad_(True)
            weight.register_hook(lambda gradient, weight=weight: gradient.masked_fill(weight == 0, 0))
            self._weights.append(weight)
        return {}

    def after_step(self, step: int, total: int, optimiser: Any) -> None:
        """Set weights to zero where it is time."""
        import torch

        if not step or not due(step, total):
            return
        share = share_after(step, total, self.end)
        with torch.no_grad():
            for weight in self._weights:
                mask = masks.smallest(weight.abs(), int(share * weight.numel()))
                weight.masked_fill_(mask, 0)
                optimiser.state[weight]["exp_avg"].masked_fill_(mask, 0)

    def finish(self) -> None:
        """Forget the weights: their zeros are in the model."""
        self._weights.clear()
