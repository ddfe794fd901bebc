"""Choosing a predictor and a test on the fit part, for one strategy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leanmodel_api.policy import Method
from leanmodel_routing import exact, figures
from leanmodel_routing.certify import predicted_lean_share
from leanmodel_routing.predictors.candidates import Candidate, candidates_for
from leanmodel_routing.predictors.fit import Fitted, fit_candidate, table_confidences
from leanmodel_routing.table import Floats, Table
from leanmodel_routing.walk import Walk, plan_walk

CHOICE_STEPS = 25
SHARE_TOLERANCE = 0.02


def choose(
    fit: Table,
    certify_size: int,
    retain: float,
    risk: float,
    seed: int,
    candidates: Sequence[Candidate] | None = None,
    method: Method | None = None,
) -> tuple[Fitted, Walk, Method]:
    """The candidate and test with the best future, by the fit part's cross-fitted confidences alone, and the
    walk.

    First the lean share that its walk is expected to certify; among those within SHARE_TOLERANCE of the
    best, the largest area under quality over share (APGR up to scale); among equals the simplest, and the test that
    `tests_for` has first.
    """
    ways = tests_for(fit, retain) if method is None else (method,)
    rated: list[tuple[float, float, Fitted, Method]] = []
    for candidate in candidates or candidates_for(fit):
        fitted = fit_candidate(candidate, fit, seed)
        walk = _walk(fit, fitted, retain, CHOICE_STEPS)
        area = _area(walk.fit, walk.crossed)
        for way in ways:
            share = predicted_lean_share(walk, certify_size, retain, risk, way, seed)
            rated.append((share, area, fitted, way))
    best = max(share for share, _, _, _ in rated)
    near = [item for item in rated if item[0] >= best - SHARE_TOLERANCE]
    area = max(item[1] for item in near)
    fitted = next(item[2] for item in near if item[1] >= area - 1e-3 * abs(area))
    share = max(item[0] for item in near if item[2] is fitted)
    way = next(item[3] for item in near if item[2] is fitted and item[0] == share)
    return fitted, _walk(fit, fitted, retain), way


def tests_for(fit: Table, retain: float) -> tuple[Method, ...]:
    """The tests that can be used, of equals the preferred one first; the approximate one must be asked for.

    Of a plain mean a mixture of bets is never stronger than bets on the target. Balanced over classes it can be: it bets
    on the rarest class by itself, where the others have records to spare.
    """
    found: list[Method] = ["ltt-exact"] if exact.applies(fit, retain) else []
    found.append("ltt-target-betting")
    if fit.aggregate == "balanced":
        found.append("ltt-betting")
    return tuple(found)


def _walk(fit: Table, fitted: Fitted, retain: float, steps: int | None = None) -> Walk:
    scores = table_confidences(fitted.predictor, fit)
    return plan_walk(fit, scores, fitted.crossed, retain, *(() if steps is None else (steps,)))


def _area(fit: Table, crossed: Floats) -> float:
    if not len(fit):
        return 0.0
    curve = figures.curve_of(fit, crossed)
    return float(np.trapezoid(curve.quality[::-1], curve.share[::-1]))
