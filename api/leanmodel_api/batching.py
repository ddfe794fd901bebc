"""How texts that an encoder's engine has together are computed: what it serves by, and what a search measures by. Pure."""

from __future__ import annotations

from collections.abc import Sequence

MAX_SEQUENCES = 64
"""Texts that an engine computes at once, where its settings say nothing else."""
BATCH_TOKENS = 8192
"""Padded tokens that are computed at once at most (one text may have more): bounds a replica's memory."""


def groups(lengths: Sequence[int], most_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Return the indices of texts in groups of like length, so that padding neither costs much nor fills the memory."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda at: lengths[at]):
        if found and lengths[index] * (len(found[-1]) + 1) <= most_tokens:
            found[-1].append(index)
        else:
            found.append([index])
    return found
