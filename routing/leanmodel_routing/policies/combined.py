"""`combined`: the prompt says whether the lean model is worth asking, and its answer whether it is kept.

Before and after together never lost against either alone in Dekoninck et al., "A unified approach to routing and
cascading for LLMs" (ICML 2025, arXiv 2410.10347). Here the prompt only saves lean calls: it is asked where P(kept) ·
cost of a large call is worth more than the lean call and its seconds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leanmodel_routing.certify import predicted_steps
from leanmodel_routing.policies.cascade import cascade
from leanmodel_routing.policies.predictive import predictive
from leanmodel_routing.policies.ways import Aim, Way, cost_each
from leanmodel_routing.walk import ACCEPT_ALL, Walk, plan_walk

CUTS = tuple(index / 20 for index in range(1, 20))
"""Shares of the requests that may go straight to the large model."""
CALM = 1.64
"""A cut must be cheaper than none by this many standard errors, or noise would choose it."""


def combined(aim: Aim, both: tuple[Way, Way | None] | None = None) -> Way | None:
    """A cascade behind the cut that costs least on the fit part; None where no cut saves anything.

    `both`: the cascade and the predictive way for the same aim, where they are known already. The cut is found at
    the threshold that the cascade should reach, and kept over the whole walk.
    """
    after, before = both or (cascade(aim), predictive(aim))
    if before is None or before.before is None or after.after is None or not aim.fit.costs_known:
        return None
    first, second = before.before, after.after
    seen = ~(np.isnan(first.crossed) | np.isnan(second.crossed))
    rows = aim.fit.take(np.flatnonzero(seen))
    steps = predicted_steps(after.walk, aim.certify_size, aim.retain, aim.risk, after.method, aim.seed)
    if not len(rows) or not steps:
        return None
    kept = second.crossed[seen] >= after.walk.thresholds[steps[-1]]
    confidence = first.crossed[seen]
    plain = cost_each(rows, np.ones(len(rows), dtype=np.bool_), kept, aim.usd_per_second)
    best, ask_at = 0.0, 0.0
    for cut in CUTS:
        place = float(np.quantile(confidence, cut))
        asked = confidence >= place
        saved = plain - cost_each(rows, asked, kept & asked, aim.usd_per_second)
        lead = float(saved.mean() - CALM * saved.std() / np.sqrt(len(rows)))
        if lead > best:
            best, ask_at = lead, place
    if ask_at <= 0.0:
        return None
    way = Way("combined", first, ask_at, second, after.walk, after.method)
    walk = behind_the_cut(plan_walk(aim.fit, way.scores(aim.fit), way.crossed(len(aim.fit)), aim.retain))
    return None if walk is None else replace(way, walk=walk)


def behind_the_cut(walk: Walk) -> Walk | None:
    """The walk without its last step: all-lean is no cascade behind a cut. None where nothing is left."""
    thresholds = walk.thresholds[walk.thresholds > ACCEPT_ALL]
    if not len(thresholds):
        return None
    return replace(walk, thresholds=thresholds, start=min(walk.start, len(thresholds) - 1))
