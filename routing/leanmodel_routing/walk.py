"""The order of the walk: which thresholds are tested, from where, and with which bets. All from the fit
part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanmodel_routing.betting import FRACTIONS
from leanmodel_routing.table import Floats, Ints, Table

STEPS = 100
ACCEPT_ALL = 0.0
"""The threshold of the last step: all-lean."""
SKIPPED = -1.0
"""The score of a request that never asks the lean model: below every threshold of a walk."""


@dataclass(frozen=True)
class Walk:
    """Thresholds in the order of the walk, falling: the first accepts about 1% of the requests, the last
    all.

    `start`: index of the step to begin at. `crossed`: cross-fitted confidences of the fit records at
    `rows`, with which the fit part's losses at a step are found.
    """

    thresholds: Floats
    start: int
    fit: Table
    crossed: Floats


def losses_at(table: Table, confidence: Floats, threshold: float, retain: float) -> Floats:
    """Losses retain · large - routed, [n], in [-1, retain], of accepting at `threshold` or above."""
    found: Floats = retain * table.large - np.where(confidence >= threshold, table.lean, table.large)
    return found


def plan_walk(fit: Table, confidence: Floats, crossed: Floats, retain: float, steps: int = STEPS) -> Walk:
    """Plan the walk from the fit part: its confidences [n] by the final predictor, and cross-fitted ones [n].

    Cross-fitted confidences are NaN for records that were left out; those shape neither bets nor start.
    """
    known: Ints = np.flatnonzero(~np.isnan(crossed))
    rows, seen = fit.take(known), crossed[known]
    thresholds = _thresholds(confidence, steps)
    return Walk(thresholds, _start(rows, seen, thresholds, retain) if len(rows) else 0, rows, seen)


def _thresholds(confidence: Floats, steps: int) -> Floats:
    """Midway between neighbouring confidences, so that rounding of a log-probability decides nothing."""
    values = np.unique(confidence)[::-1]
    if len(values) < 2:
        return np.array([ACCEPT_ALL])
    ordered = np.sort(confidence)[::-1]
    wanted = ordered[np.ceil(np.arange(1, steps) / steps * len(ordered)).astype(int) - 1]
    index = np.searchsorted(-values, -np.unique(wanted)[::-1])
    index = index[index < len(values) - 1]
    middles = (values[index] + values[index + 1]) / 2.0
    return np.append(middles[middles > 0.0], ACCEPT_ALL)


def _start(fit: Table, crossed: Floats, thresholds: Floats, retain: float) -> int:
    """The first step, unless the fit part shows that a later one is easier to certify.

    That is so where lean answers are better than the large model's: quality then rises along the walk, and
    the first steps, which accept next to nothing, are the hardest. A later start skips dearer steps only.
    The choice uses the growth of the best bet per record, and must win by more than its standard error, or
    noise would choose it.
    """
    weight = fit.mass * len(fit)
    first = _growth(losses_at(fit, crossed, float(thresholds[0]), retain), weight, retain)
    best, start = 0.0, 0
    for index in range(1, len(thresholds)):
        ahead = _growth(losses_at(fit, crossed, float(thresholds[index]), retain), weight, retain) - first
        spread = float((weight * ahead).std()) / np.sqrt(len(fit))
        lead = float((weight * ahead).mean()) - 1.64 * spread
        if lead > best + 1e-12:
            best, start = lead, index
    return start


def _growth(losses: Floats, weight: Floats, retain: float) -> Floats:
    """Log-growth of each record under the fraction that is best on average; half a total harm is added, so
    that no fraction of 1 looks safe.
    """
    values, inverse = np.unique(losses, return_inverse=True)
    mass = np.bincount(inverse, weights=weight)
    grown = np.log1p(-np.minimum(FRACTIONS[:-1, None] * values[None, :] / retain, 0.999999))
    with_harm = grown @ mass + 0.5 * np.log1p(-FRACTIONS[:-1])
    found: Floats = grown[int(np.argmax(with_harm))][inverse]
    return found
