"""vLLM's plugin for low-rank models (``Factorize``): loaded by vLLM in each of its processes.

Entered in pyproject.toml under ``vllm.general_plugins``. It tells transformers of our configurations and vLLM of our
model classes; no code travels with the weights. The classes are imported by vLLM when a model asks for one.
"""

from __future__ import annotations

from typing import Any

from leanmodel_api.low_rank import FAMILIES, RANKS, architecture, model_type


def register() -> None:
    """Make vLLM load low-rank models; may be called again."""
    from transformers import AutoConfig
    from vllm import ModelRegistry

    for family in FAMILIES:
        AutoConfig.register(model_type(family), configuration(family), exist_ok=True)
        name = architecture(family)
        if name not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(name, f"leanmodel_serving.engines.low_rank_models:{name}")


def configuration(family: str) -> Any:
    """Return the family's configuration class with our model type and the ranks."""
    import transformers

    base = getattr(transformers, f"{family}Config")
    more = {
        "__module__": __name__,
        "__annotations__": {RANKS: dict | None},
        "model_type": model_type(family),
        RANKS: None,
    }
    return type(architecture(family).replace("ForCausalLM", "Config"), (base,), more)
