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


def start_of(walk: Walk, retain: float) -> int:
    """Where a walk over the same thresholds would begin for another promise, by the fit part alone."""
    return _start(walk.fit, walk.crossed, walk.thresholds, retain) if len(walk.fit) else 0


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
    lean, large = (
        _growths(retain * fit.large - fit.lean, retain),
        _growths(retain * fit.large - fit.large, retain),
    )
    bets = _best_bets(weight * lean, weight * large, crossed, thresholds)

    def growth(index: int) -> Floats:
        found: Floats = np.where(crossed >= thresholds[index], lean[bets[index]], large[bets[index]])
        return found

    first = growth(0)
    best, start = 0.0, 0
    for index in range(1, len(thresholds)):
        ahead = weight * (growth(index) - first)
        lead = float(ahead.mean()) - 1.64 * float(ahead.std()) / np.sqrt(len(fit))
        if lead > best + 1e-12:
            best, start = lead, index
    return start


def _growths(losses: Floats, retain: float) -> Floats:
    """Log-growth [fractions, n] of a stake on each record; no fraction of 1, which one total harm would end."""
    found: Floats = np.log1p(-np.minimum(FRACTIONS[:-1, None] * losses[None, :] / retain, 0.999999))
    return found


def _best_bets(lean: Floats, large: Floats, crossed: Floats, thresholds: Floats) -> Ints:
    """Which fraction grows most at each threshold; half a total harm is added, so that none of 1 looks safe.

    Weighted growths [fractions, n] of the records where the lean answer is accepted, and where the large one is.
    """
    order = np.argsort(-crossed, kind="stable")
    accepted = np.searchsorted(-crossed[order], -thresholds, side="right")
    gained = np.cumsum((lean - large)[:, order], axis=1)
    gained = np.concatenate([np.zeros((len(gained), 1)), gained], axis=1)[:, accepted]
    grown = large.sum(axis=1)[:, None] + gained + 0.5 * np.log1p(-FRACTIONS[:-1, None])
    found: Ints = np.argmax(grown, axis=0)
    return found
