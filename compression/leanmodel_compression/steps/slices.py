"""Which neurons and heads of a layer stay, and how what stays makes up for what goes. Pure: matrices in and out.

A unit's score is how much it adds to its layer's output: the norm, over all calibration tokens, of its inputs times
its columns of the output projection (for one column the norm of the input times the norm of the column: Wanda-sp
of FLAP, arXiv 2312.11983). The columns that stay then take over what can be told of the others from them: least
squares on the same tokens, drawn towards no change (the update of ZipLM, arXiv 2302.04089).
"""

from __future__ import annotations

from typing import Any

# Share of the mean diagonal that is added to it, as GPTQ and SparseGPT do.
DAMPENING = 0.01


def contributions(weight: Any, moments: Any, width: int) -> Any:
    """Return the score of each unit.

    Args:
        weight: of the output projection, rows × columns.
        moments: of its inputs, columns × columns.
        width: neighbouring columns that make one unit.

    Returns:
        Norms, one for each of columns / width units.
    """
    import torch

    units = weight.shape[1] // width
    columns = weight.reshape(weight.shape[0], units, width)
    blocks = torch.stack(
        [moments[at : at + width, at : at + width] for at in range(0, weight.shape[1], width)]
    )
    # trace(W C Wᵀ) of each unit's own block.
    return torch.einsum("rui,uij,ruj->u", columns, blocks, columns).clamp_min(0).sqrt()


def strongest(scores: Any, count: int) -> Any:
    """Return the indices of the ``count`` largest scores in ascending order; of equal ones the first stay."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def spread(units: Any, width: int) -> Any:
    """Return the columns (or rows) of units that are ``width`` neighbours each."""
    import torch

    return (units[:, None] * width + torch.arange(width, device=units.device)[None, :]).reshape(-1)


def refit(weight: Any, moments: Any, kept: Any) -> Any:
    """Return the kept columns of an output projection, corrected for those that go.

    Args:
        weight: rows × columns.
        moments: of its inputs, columns × columns.
        kept: indices of the columns that stay.
    """
    import torch

    mask = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    mask[kept] = False
    gone = mask.nonzero().reshape(-1)
    inner = moments[kept][:, kept]
    scale = float(inner.diagonal().mean())
    if scale <= 0:
        return weight[:, kept]
    inner.diagonal().add_(DAMPENING * scale)
    told = torch.cholesky_solve(moments[kept][:, gone], torch.linalg.cholesky(inner))
    return weight[:, kept] + weight[:, gone] @ told.T
