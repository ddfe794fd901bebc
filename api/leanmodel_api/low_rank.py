"""How a low-rank model says that it is one: the names that compression writes and engines look for.

A linear layer of ``columns`` inputs and ``rows`` outputs becomes two: ``inner`` (rank × columns, no bias) and then
``outer`` (rows × rank, with the layer's bias). The model type is one of ours, so that a program that does not know
it refuses the model instead of filling plain layers with random numbers.
"""

from __future__ import annotations

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
"""Families of decoders of which there are low-rank ones, as transformers names its classes."""
RANKS = "low_rank"
"""Key of the configuration: a map of layers' names, such as ``model.layers.0.mlp.up_proj``, to their ranks."""
MODEL_TYPE = "leanmodel_low_rank_"
"""What every model type of ours begins with."""
INNER, OUTER = "inner", "outer"


def model_type(family: str) -> str:
    """Return the model type of a family's low-rank model."""
    return MODEL_TYPE + family.lower()


def architecture(family: str) -> str:
    """Return the class name of a family's low-rank model."""
    return f"LowRank{family}ForCausalLM"


def family_of(architecture_name: str) -> str | None:
    """Return the family of a plain or a low-rank architecture, or None where there are no low-rank ones."""
    for family in FAMILIES:
        if architecture_name in (f"{family}ForCausalLM", architecture(family)):
            return family
    return None
