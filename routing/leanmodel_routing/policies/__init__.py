"""Strategies, one file each, entered here; the choice among them is made on the fit part by their honest cost.

To add one, add a file that gives a `Way`, a line and a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from leanmodel_api.errors import InputError, one
from leanmodel_api.routing_policy import Considered, Strategy
from leanmodel_routing.certify import predicted_steps
from leanmodel_routing.policies.cascade import cascade
from leanmodel_routing.policies.combined import combined
from leanmodel_routing.policies.fixed import fixed
from leanmodel_routing.policies.predictive import predictive
from leanmodel_routing.policies.ways import Aim, Chooser, Way, cost_each, tried

STRATEGIES: dict[Strategy, Chooser] = {
    "fixed": fixed,
    "predictive": predictive,
    "cascade": cascade,
    "combined": combined,
}
"""Every strategy by its name, simplest first."""
TOLERANCE = 0.005
"""A strategy must be cheaper than a simpler one by this share of all-large's cost."""
LOOK_EVERY = 4
"""The prediction takes every fourth step of a walk: it is for choosing, not for certifying."""


@dataclass(frozen=True)
class Choice:
    """`way`: the chosen one. `shown`: the cheapest that has a predictor, for curves and figures; None without one."""

    way: Way
    shown: Way | None
    considered: tuple[Considered, ...]


def choose_way(aim: Aim, strategies: Sequence[Strategy]) -> Choice:
    """The way with the least predicted cost, among equals the simplest, and all that was considered.

    Raises InputError where no strategy is named, or none of them can be had from these records.
    """
    ways: dict[Strategy, Way | None] = {}
    for name in STRATEGIES:
        if name not in strategies:
            continue
        if name == "combined" and "cascade" in ways and "predictive" in ways:
            found = ways["cascade"]
            ways[name] = None if found is None else combined(aim, (found, ways["predictive"]))
        else:
            ways[name] = STRATEGIES[name](aim)
    rated = [(way, predicted(way, aim)) for way in ways.values() if way is not None]
    if not rated:
        raise one(
            InputError,
            "strategies",
            f"found {', '.join(strategies) or 'none'}, which cannot be learnt from these records",
            "name another one (fixed, predictive, cascade, combined), give more records, or records with costs",
        )
    slack = TOLERANCE * float(np.mean(cost_each(aim.fit, *_nothing(aim), aim.usd_per_second)))
    least = min(item.cost for _, item in rated)
    chosen = next(way for way, item in rated if item.cost <= least + slack)
    telling = [item for item in rated if item[0].strategy != "fixed"]
    # Of equals the cascade: its score reads the most, so its curve tells the most.
    best = min(telling, key=lambda item: (item[1].cost, item[1].strategy != "cascade"), default=None)
    shown = None if best is None else best[0]
    considered = tuple(item.model_copy(update={"chosen": way is chosen}) for way, item in rated)
    return Choice(chosen, shown if chosen.strategy == "fixed" else chosen, considered)


def predicted(way: Way, aim: Aim) -> Considered:
    """What a way should cost once certified: the cheapest step that its walk should pass, or all-large.

    From the fit part's cross-fitted scores alone.
    """
    walk = way.walk
    last = len(walk.thresholds) - 1
    some = np.unique(np.append(np.arange(walk.start, last + 1, LOOK_EVERY), last))
    thin = replace(walk, thresholds=walk.thresholds[some], start=0)
    steps = predicted_steps(thin, aim.certify_size, aim.retain, aim.risk, way.method, aim.seed)
    rows, scores = walk.fit, walk.crossed
    best = (float(np.mean(cost_each(aim.fit, *_nothing(aim), aim.usd_per_second))), 0.0, 1.0)
    for step in steps:
        accepted = scores >= thin.thresholds[step]
        asked = tried(way.strategy, scores, accepted)
        cost = float(np.mean(cost_each(rows, asked, accepted, aim.usd_per_second)))
        best = min(best, (cost, float(asked.mean()), float(1.0 - accepted.mean())))
    return Considered(
        strategy=way.strategy,
        before=None if way.before is None else way.before.candidate.name,
        after=None if way.after is None else way.after.candidate.name,
        cost=best[0],
        lean_calls=best[1],
        large_share=best[2],
        basis="usd" if aim.fit.costs_known else "large-share",
    )


def _nothing(aim: Aim) -> tuple[np.ndarray, np.ndarray]:
    none = np.zeros(len(aim.fit), dtype=np.bool_)
    return none, none


__all__ = ["STRATEGIES", "Aim", "Choice", "Considered", "Strategy", "Way", "choose_way", "predicted"]
