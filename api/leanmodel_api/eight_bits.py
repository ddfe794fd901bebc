"""Weights in 8 bits whose activations are not rounded, as both who writes them and who serves them know them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TABLE_GROUP = "token_table"
"""Name of the token table's group in ``quantization_config.config_groups``."""
BITS = 8


def table_of(quantization: Mapping[str, Any]) -> str:
    """Return the name of the module whose table is stored in 8 bits; empty where none is.

    Args:
        quantization: the ``quantization_config`` of a model's configuration.
    """
    group = (quantization.get("config_groups") or {}).get(TABLE_GROUP) or {}
    targets = group.get("targets") or [""]
    return str(targets[0])


def weights_alone(quantization: Mapping[str, Any], bits: int) -> bool:
    """Say whether linear layers have integers of so many bits, and activations as they come (W4A16, W8A16).

    Args:
        quantization: as above.
        bits: 4 or 8.
    """
    groups = quantization.get("config_groups") or {}
    return any(
        (group.get("weights") or {}).get("num_bits") == bits and not group.get("input_activations")
        for name, group in groups.items()
        if name != TABLE_GROUP
    )
