"""AIQ of a table: the area under the hull of (cost, quality) over the cost range, with its bootstrap interval.

Hu et al., "RouterBench", arXiv 2403.12031, section 3. Over dollars between the two models alone where costs are known,
else over the large share. A rule that costs more than the large model alone is never run, and left out.
"""

from __future__ import annotations

import numpy as np

from leanmodel_api.policy import Interval
from leanmodel_routing import figures
from leanmodel_routing.figures import Curve
from leanmodel_routing.intervals import percentile_interval
from leanmodel_routing.table import Floats, Table
from leanmodel_routing.walk import SKIPPED

POINTS = 60
"""Points of a drawn curve: its hull loses less than 0.001 by that."""
BATCH = 16
"""Draws at a time: sums of 16 · n numbers stay small in memory."""


def table_aiq(table: Table, curve: Curve | None) -> float | None:
    """AIQ of a curve (None: of the two models alone); None where there is no cost range."""
    lean, large = figures.quality_of(table, table.lean), figures.quality_of(table, table.large)
    if not table.costs_known:
        if curve is None:
            return figures.aiq(np.array([0.0, 1.0]), np.array([lean, large]))
        return figures.aiq(curve.share, curve.quality)
    ends = (float(table.lean_cost.mean()), float(table.large_cost.mean()))
    cost, quality = np.array(ends), np.array([lean, large])
    if curve is not None:
        inside = curve.cost <= max(ends)
        cost, quality = np.append(cost, curve.cost[inside]), np.append(quality, curve.quality[inside])
    return figures.aiq(cost, quality)


def aiq_interval(table: Table, confidence: Floats, drawn: Floats, *, direct: bool) -> Interval | None:
    """95% interval over draws [draws, n] of the records; None where a draw has no cost range."""
    parts = np.array_split(drawn, -(-len(drawn) // BATCH))
    found = np.concatenate([aiq_draws(table, confidence, part, direct=direct) for part in parts])
    return None if np.isnan(found).any() else percentile_interval(found)


def aiq_draws(
    table: Table, confidence: Floats, drawn: Floats, *, direct: bool, points: int = POINTS
) -> Floats:
    """AIQ of each draw [draws, n], of the curve by `confidence` [n] at so many points; NaN without a range."""
    ranks = np.argsort(confidence, kind="stable")
    ranked = confidence[ranks]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, points).astype(np.int64))]
    starts = np.concatenate([[0], ends[:-1] + 1])

    def upward(values: Floats) -> Floats:
        """Sums [draws, points + 1] of values [n] over what has gone large, from nothing to all."""
        blocks = np.add.reduceat((drawn * values)[:, ranks], starts, axis=1)
        found: Floats = np.concatenate([np.zeros((len(drawn), 1)), np.cumsum(blocks, axis=1)], axis=1)
        return found

    mass = upward(table.mass)
    lean, large = upward(table.mass * table.lean), upward(table.mass * table.large)
    quality = (large + lean[:, -1:] - lean) / mass[:, -1:]
    if not table.costs_known:
        cost = upward(np.ones(len(table))) / len(table)
    else:
        dear, cheap = upward(table.large_cost), upward(table.lean_cost)
        left = cheap[:, -1:] - cheap
        if not direct:
            asked = drawn @ np.where(confidence > SKIPPED, table.lean_cost, 0.0)
            left[:, 1:-1] = asked[:, None]
        cost = (dear + left) / len(table)
    found = []
    for costs, qualities in zip(cost, quality, strict=True):
        inside = costs <= max(costs[0], costs[-1])
        area = figures.aiq(costs[inside], qualities[inside])
        found.append(np.nan if area is None else area)
    return np.array(found)
