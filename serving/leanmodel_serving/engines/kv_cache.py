"""How large a key-value cache one request needs, for words of what to write when an engine did not start. Pure."""

from __future__ import annotations

import math

_MIB = 2**20


def needed_bytes(
    layers: int, kv_heads: int, head_size: int, value_bytes: int, tokens: int, block: int
) -> int:
    """Return the bytes of keys and values of one request of full length, where all layers attend to all of it.

    Args:
        value_bytes: of one number.
        tokens: of prompt and answer.
        block: tokens that are allocated at once.
    """
    return 2 * layers * kv_heads * head_size * value_bytes * math.ceil(tokens / block) * block


def too_small(revision: str, given: int, needed: int, tokens: int) -> str:
    """Return what to write when the cache does not hold one request; empty when it does.

    Args:
        revision: its name says whose cache it is: large-..., lean-....
        given: bytes of the cache.
        needed: bytes of one request of ``tokens``.
    """
    if given >= needed:
        return ""
    role = revision.partition("-")[0]
    return (
        f"spec.serving.{role}.kvCache: found {given // _MIB}Mi, one request of spec.serving.{role}.maxModelLength "
        f"{tokens} needs {math.ceil(needed / _MIB)}Mi; write more (each further request under way needs as much), or "
        "a smaller maxModelLength"
    )
