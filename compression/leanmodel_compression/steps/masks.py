"""Which weights of a matrix go. Pure: scores in, masks out; True means that a weight becomes zero."""

from __future__ import annotations

from typing import Any

GROUP = 4
ZEROS_IN_GROUP = 2


def smallest(scores: Any, count: int) -> Any:
    """Return a mask of the ``count`` smallest scores of a matrix; of equal ones the first go.

    Args:
        scores: rows × columns, not negative.
        count: between 0 and the number of scores.
    """
    import torch

    flat = scores.reshape(-1)
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # A threshold and a count of its ties: a full sort would hold eight bytes more per weight.
    limit = flat.kthvalue(count).values
    mask = flat < limit
    ties = (flat == limit).nonzero().reshape(-1)
    mask[ties[: count - int(mask.sum())]] = True
    return mask.reshape(scores.shape)


def blocks(scores: Any, share: float, size: int) -> Any:
    """Return a mask of the blocks of size × size whose scores' squares are least, so many that their share is reached.

    Args:
        scores: rows × columns, both multiples of the size.
        share: of the blocks.
    """
    rows, columns = scores.shape
    sums = scores.square().reshape(rows // size, size, columns // size, size).sum((1, 3))
    mask = smallest(sums, int(share * sums.numel()))
    return mask.repeat_interleave(size, 0).repeat_interleave(size, 1)


def two_of_four(scores: Any) -> Any:
    """Return a mask of the two smallest scores in each four neighbouring columns of a row.

    Args:
        scores: rows × columns, columns a multiple of four.
    """
    import torch

    groups = scores.reshape(scores.shape[0], -1, GROUP)
    chosen = groups.argsort(dim=-1, stable=True)[..., :ZEROS_IN_GROUP]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, chosen, True)
    return mask.reshape(scores.shape)


def is_two_of_four(weight: Any) -> bool:
    """Say whether each four neighbouring columns of every row hold at least two zeros."""
    groups = (weight == 0).reshape(weight.shape[0], -1, GROUP)
    return bool((groups.sum(-1) >= ZEROS_IN_GROUP).all())
