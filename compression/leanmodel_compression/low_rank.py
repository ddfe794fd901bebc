"""Low-rank models in transformers: classes of our own that put two thin layers where a linear one was.

``register()`` makes ``AutoModelForCausalLM`` load them.
"""

from __future__ import annotations

import functools
from typing import Any

from leanmodel_api.low_rank import FAMILIES, INNER, OUTER, RANKS, architecture, model_type

from . import own_classes


@functools.cache
def register() -> None:
    """Tell transformers of the low-rank model types; once is enough."""
    own_classes.register(FAMILIES, classes)


@functools.cache
def classes(family: str) -> tuple[Any, Any]:
    """Return a family's low-rank configuration and model class."""
    field = (RANKS, dict)
    return own_classes.derive(family, architecture(family), model_type(family), field, methods, __name__)


def methods(base: Any) -> dict[str, Any]:
    """Return what makes a family's model class one of low rank."""

    def build(self: Any, settings: Any) -> None:
        base.__init__(self, settings)
        replace(self, getattr(settings, RANKS) or {})

    return {"__init__": build}


def replace(model: Any, ranks: dict[str, int]) -> None:
    """Put pairs of thin layers where the named linear layers are; their weights are still to be loaded."""
    for name, rank in ranks.items():
        parent, _, child = name.rpartition(".")
        holder = model.get_submodule(parent)
        linear = getattr(holder, child)
        setattr(holder, child, pair(linear.in_features, rank, linear.out_features, linear.bias is not None))


def pair(columns: int, rank: int, rows: int, bias: bool) -> Any:
    """Return two thin layers in a row: ``inner`` and ``outer``."""
    from collections import OrderedDict

    from torch import nn

    thin = [(INNER, nn.Linear(columns, rank, bias=False)), (OUTER, nn.Linear(rank, rows, bias=bias))]
    return nn.Sequential(OrderedDict(thin))
