"""Low-rank models in transformers: classes of our own that put two thin layers where a linear one was.

``register()`` makes ``AutoModelForCausalLM`` load them. They are the family's own classes in all else, so that
training, saving and loading need nothing further, and no code travels with the weights.
"""

from __future__ import annotations

import functools
from typing import Any

from leanmodel_api.low_rank import FAMILIES, INNER, OUTER, RANKS, architecture, model_type


@functools.cache
def register() -> None:
    """Tell transformers of the low-rank model types; once is enough."""
    from transformers import AutoConfig, AutoModelForCausalLM

    for family in FAMILIES:
        config, model = classes(family)
        AutoConfig.register(model_type(family), config)
        AutoModelForCausalLM.register(config, model)


@functools.cache
def classes(family: str) -> tuple[Any, Any]:
    """Return a family's low-rank configuration and model class."""
    import transformers

    base_config = getattr(transformers, f"{family}Config")
    base_model = getattr(transformers, f"{family}ForCausalLM")
    name = architecture(family)
    config = type(
        name.replace("ForCausalLM", "Config"),
        (base_config,),
        {"__module__": __name__, "__annotations__": {RANKS: dict | None}, "model_type": model_type(family), RANKS: None},
    )  # fmt: skip

    def build(self: Any, settings: Any) -> None:
        base_model.__init__(self, settings)
        replace(self, getattr(settings, RANKS) or {})

    return config, type(
        name, (base_model,), {"__module__": __name__, "config_class": config, "__init__": build}
    )


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
