"""The grid of integers that Quantize puts weights on, as torch functions: symmetric, scales stored as bf16.

This is compressed-tensors' arithmetic for its schemes W4A16 (one scale per group of columns), W8A16 (one per row)
and W8A8 (one per row, and one per token for activations, as they come), with scales rounded before weights are put on their grid (see
quantize). It is written out here because training goes through it many times; a test holds both to the same bits.
"""

from __future__ import annotations

from typing import Any

BITS = {"W8A8": 8, "W8A16": 8, "W4A16": 4}


def fake(weight: Any, bits: int, group: int | None) -> Any:
    """Return a weight as it will be after quantising and expanding it again.

    Args:
        weight: rows × columns, float32; bf16 is what will be stored, so it is rounded to that first.
        bits: of an integer.
        group: columns that share a scale, or None for whole rows.
    """
    import torch

    stored = weight.to(torch.bfloat16).to(weight.dtype)
    parts = stored.unflatten(-1, (-1, group or stored.shape[-1]))
    return on_grid(parts, scales(parts, bits), bits).flatten(-2)


def scales(parts: Any, bits: int) -> Any:
    """Return the scale of each part (its last dimension), as it will be stored."""
    import torch

    found = parts.abs().amax(-1, keepdim=True) / ((2**bits - 1) / 2)
    found = torch.where(found == 0, torch.finfo(found.dtype).eps, found)
    return found.to(torch.bfloat16).to(found.dtype)


def on_grid(values: Any, scale: Any, bits: int) -> Any:
    """Return values rounded to whole multiples of their scale that fit into so many bits."""
    top = 2 ** (bits - 1)
    return (values / scale).clamp_(-top, top - 1).round_().mul_(scale)


def fake_tokens(states: Any) -> Any:
    """Return activations (… × width) in 8 bits, one scale per token, as W8A8 computes with them."""
    import torch

    scale = states.abs().amax(-1, keepdim=True) / ((2**8 - 1) / 2)
    scale = torch.where(scale == 0, torch.finfo(scale.dtype).eps, scale)
    return on_grid(states, scale, 8)
