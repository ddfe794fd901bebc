"""Models with shared layers in transformers: the family's own classes, in which layers of a group are tied.

``register()`` makes ``AutoModelForCausalLM`` load them. Tying is transformers' own, as for a head that is the token
table: weights are stored once, a parameter that several layers use is listed once, and its gradients add up. Each
layer stays a module of its own, with its own place in the cache of keys and values.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from leanmodel_api.shared import FAMILIES, LAYERS, architecture, model_type

from . import own_classes


@functools.cache
def register() -> None:
    """Tell transformers of the shared model types; once is enough."""
    own_classes.register(FAMILIES, classes)


@functools.cache
def classes(family: str) -> tuple[Any, Any]:
    """Return a family's shared configuration and model class."""
    field = (LAYERS, list)
    return own_classes.derive(family, architecture(family), model_type(family), field, methods, __name__)


def methods(base: Any) -> dict[str, Any]:
    """Return what makes a family's model class one whose layers are tied."""

    def tied(self: Any, all_submodels: bool = False) -> dict[str, str]:
        found: dict[str, str] = base.get_expanded_tied_weights_keys(self, all_submodels=all_submodels)
        named = [key for key, _ in self.named_parameters(remove_duplicate=False)]
        return {**found, **ties(named, getattr(self.config, LAYERS) or [])}

    def build(self: Any, settings: Any) -> None:
        base.__init__(self, settings)
        # Saving looks here for names that may be left out, and takes them for patterns.
        own = {re.escape(key) + "$": value for key, value in self.all_tied_weights_keys.items()}
        self._tied_weights_keys = {**(base._tied_weights_keys or {}), **own}

    return {"__init__": build, "get_expanded_tied_weights_keys": tied}


def ties(names: list[str], sources: list[int]) -> dict[str, str]:
    """Return which parameter stands for which other one: the tied one's name to its source's.

    Args:
        names: of all parameters, tied ones too.
        sources: for each layer the one whose weights it has.
    """
    found: dict[str, str] = {}
    for index, source in enumerate(sources):
        if source != index:
            mine, theirs = f"model.layers.{index}.", f"model.layers.{source}."
            found |= {name: theirs + name.removeprefix(mine) for name in names if name.startswith(mine)}
    return found
