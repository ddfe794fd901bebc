"""A token table in 8 bits, as both who writes it and who serves it know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GROUP = "token_table"
"""Name of its group in ``quantization_config.config_groups``."""
BITS = 8


def table_of(quantization: Mapping[str, Any]) -> str:
    """Return the name of the module whose table is stored in 8 bits; empty where none is.

    Args:
        quantization: the ``quantization_config`` of a model's configuration.
    """
    group = (quantization.get("config_groups") or {}).get(GROUP) or {}
    targets = group.get("targets") or [""]
    return str(targets[0])
