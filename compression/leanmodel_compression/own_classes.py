"""Classes of our own for transformers: a family's own ones with one more field in the configuration.

They are the family's classes in all else, so that training, saving and loading need nothing further, and no code
travels with the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Classes = Callable[[str], tuple[Any, Any]]
"""From a family to its configuration and its model class."""


def register(families: Iterable[str], classes: Classes) -> None:
    """Let ``AutoConfig`` and ``AutoModelForCausalLM`` know each family's classes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    for family in families:
        config, model = classes(family)
        AutoConfig.register(config.model_type, config)
        AutoModelForCausalLM.register(config, model)


def derive(
    family: str,
    name: str,
    model_type: str,
    field: tuple[str, Any],
    methods: Callable[[Any], dict[str, Any]],
    module: str,
) -> tuple[Any, Any]:
    """Return a family's configuration with one more field, and its model class with other methods.

    Args:
        family: in transformers' names, as ``Llama``.
        name: the architecture's, which ends in ``ForCausalLM``.
        model_type: what ``config.json`` calls it.
        field: the configuration's own field and its type; it is None unless it is given.
        methods: from the family's model class to the methods that stand in place of its own.
        module: where both classes say that they are from.
    """
    import transformers

    base = getattr(transformers, f"{family}ForCausalLM")
    key, kind = field
    config = type(
        name.replace("ForCausalLM", "Config"),
        (getattr(transformers, f"{family}Config"),),
        {"__module__": module, "__annotations__": {key: kind | None}, "model_type": model_type, key: None},
    )
    return config, type(name, (base,), {"__module__": module, "config_class": config, **methods(base)})
