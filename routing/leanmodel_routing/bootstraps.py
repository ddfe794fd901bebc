"""Bootstrap intervals of the figures: every draw weighs the same records anew, nothing is fitted again."""

from __future__ import annotations

import numpy as np

from leanmodel_api.policy import Interval
from leanmodel_routing import figures
from leanmodel_routing.aiq import aiq_interval
from leanmodel_routing.intervals import bootstrap_weights, percentile_interval, wilson_interval
from leanmodel_routing.table import Floats, Mask, Table

SHORT = 0.01
"""A figure is left without an interval where more than this share of the draws shows no gap to recover."""
BATCH = 16
"""Draws at a time: curves of 16 · n points stay small in memory."""


def intervals(
    table: Table,
    accept: Mask,
    pair: Floats,
    each: Floats | None,
    scores: Floats | None,
    seed: int,
    *,
    direct: bool,
) -> dict[str, Interval]:
    """95% intervals by key.

    `pair`: quality of each request as routed [n]. `each`: its cost [n], None where unknown. `scores`: what the
    curve is by [n], None where there is none; `direct` as in `figures.curve_of`.
    """
    n = len(table)
    found = {"large_share": wilson_interval(float(n - accept.sum()), n)}
    if n < 2:
        return found
    drawn = bootstrap_weights(table.stratum, seed)
    mass = drawn * table.mass
    total = mass.sum(axis=1)
    pairs, larges, leans = (mass @ pair / total, mass @ table.large / total, mass @ table.lean / total)
    share = 1.0 - drawn @ accept / n
    found["quality"] = percentile_interval(pairs)
    found["quality_large"] = percentile_interval(larges)
    found["quality_lean"] = percentile_interval(leans)
    found["quality_random"] = percentile_interval(share * larges + (1.0 - share) * leans)
    found["quality_oracle"] = percentile_interval(mass @ np.maximum(table.lean, table.large) / total)
    if (larges > 0.0).all():
        found["quality_retained"] = percentile_interval(pairs / larges)
        found["lean_quality_retained"] = percentile_interval(leans / larges)
    if each is not None:
        costs, alone = drawn @ each / n, drawn @ table.large_cost / n
        found["cost"] = percentile_interval(costs)
        if (alone > 0.0).all():
            found["saving"] = percentile_interval(1.0 - costs / alone)
    if scores is not None:
        found.update(curve_intervals(table, scores, drawn, mass, larges - leans))
        area = aiq_interval(table, scores, drawn, direct=direct)
        found.update({} if area is None else {"aiq": area})
    return found


def curve_intervals(
    table: Table, confidence: Floats, drawn: Floats, mass: Floats, gap: Floats
) -> dict[str, Interval]:
    """Intervals of CPT(50), CPT(80) and APGR over draws [draws, n] whose gap [draws] is above 0.

    Empty where more than SHORT of the draws show no gap: an interval of a ratio whose denominator may be 0 would
    say nothing.
    """
    shown = np.flatnonzero(gap > figures.NO_GAP)
    if len(shown) < (1.0 - SHORT) * len(gap):
        return {}
    parts = [
        curve_draws(table, confidence, drawn[rows], mass[rows])
        for rows in np.array_split(shown, -(-len(shown) // BATCH))
    ]
    return {key: percentile_interval(np.concatenate([part[key] for part in parts])) for key in parts[0]}


def curve_draws(table: Table, confidence: Floats, drawn: Floats, mass: Floats) -> dict[str, Floats]:
    """CPT(50), CPT(80) and APGR of each draw [draws, n], by the definitions in `figures`."""
    # From all-lean upward: the least sure records go large first, those of one confidence together.
    ranks = np.argsort(confidence, kind="stable")
    ranked = confidence[ranks]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    gain = (table.large - table.lean)[ranks]
    share = _from_zero(np.cumsum(drawn[:, ranks], axis=1)[:, ends]) / len(table)
    recovered = _from_zero(np.cumsum(mass[:, ranks] * gain, axis=1)[:, ends])
    recovered = recovered / recovered[:, -1:]
    return {
        "cpt50": _first_at(share, recovered, 0.5),
        "cpt80": _first_at(share, recovered, 0.8),
        "apgr": np.asarray(np.trapezoid(recovered, share, axis=1), dtype=np.float64),
    }


def _from_zero(values: Floats) -> Floats:
    found: Floats = np.concatenate([np.zeros((len(values), 1)), values], axis=1)
    return found


def _first_at(share: Floats, recovered: Floats, level: float) -> Floats:
    """CPT of each row: where `recovered` first reaches the level, straight between two thresholds."""
    rows = np.arange(len(share))
    index = np.maximum(np.argmax(recovered >= level - 1e-12, axis=1), 1)
    y0, y1 = recovered[rows, index - 1], recovered[rows, index]
    x0, x1 = share[rows, index - 1], share[rows, index]
    found: Floats = x0 + (x1 - x0) * np.clip((level - y0) / np.where(y1 > y0, y1 - y0, 1.0), 0.0, 1.0)
    return found
