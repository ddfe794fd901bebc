"""How a model with shared layers says that it is one: the names that compression writes.

Layers of a group have one set of weights, stored under the name of the group's first layer. The model type is one of
ours, so that a program that does not know it refuses the model instead of filling the other layers with random
numbers. No engine loads it: what is served is an expanded copy.
"""

from __future__ import annotations

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
"""Families of decoders of which there are shared ones, as transformers names its classes."""
LAYERS = "shared_layers"
"""Key of the configuration: for each layer, the number of the layer whose weights it has."""
MODEL_TYPE = "leanmodel_shared_"
"""What every model type of a shared model begins with."""


def model_type(family: str) -> str:
    """Return the model type of a family's shared model."""
    return MODEL_TYPE + family.lower()


def architecture(family: str) -> str:
    """Return the class name of a family's shared model."""
    return f"Shared{family}ForCausalLM"


def family_of(architecture_name: str) -> str | None:
    """Return the family of a plain or a shared architecture, or None where there are no shared ones."""
    for family in FAMILIES:
        if architecture_name in (f"{family}ForCausalLM", architecture(family)):
            return family
    return None
