"""How a strategy comes to its score, and what its calls cost: one arithmetic for all of them.

Every strategy is written as one score per request, and accepts at a threshold or above. So all walk the same way and
are certified the same way. A request that never asks the lean model has the score SKIPPED, below every threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leanmodel_api.errors import InputError, one
from leanmodel_api.policy import Method
from leanmodel_api.routing_policy import Strategy
from leanmodel_routing.predictors.fit import Fitted, table_confidences
from leanmodel_routing.table import Floats, Mask, Table
from leanmodel_routing.walk import SKIPPED, Walk


@dataclass(frozen=True)
class Way:
    """A strategy with its fitted predictors, the walk that its certificate takes, and the test it takes."""

    strategy: Strategy
    before: Fitted | None
    ask_at: float
    after: Fitted | None
    walk: Walk
    method: Method

    def scores(self, table: Table) -> Floats:
        """Scores [n] of a table's records."""
        before = None if self.before is None else table_confidences(self.before.predictor, table)
        after = None if self.after is None else table_confidences(self.after.predictor, table)
        return combine(before, self.ask_at, after, len(table))

    def crossed(self, n: int) -> Floats:
        """Cross-fitted scores of the n fit records; NaN for those left out of the fit."""
        before = None if self.before is None else self.before.crossed
        after = None if self.after is None else self.after.crossed
        return combine(before, self.ask_at, after, n)


@dataclass(frozen=True)
class Aim:
    """What a strategy is to be good for; all that it may see is the fit part, and how many records will certify.

    `usd_per_second`: what a second of a request's latency is worth. `method`: the test, None to let it be chosen.
    """

    fit: Table
    certify_size: int
    retain: float
    risk: float
    seed: int
    method: Method | None
    usd_per_second: float


def combine(before: Floats | None, ask_at: float, after: Floats | None, n: int) -> Floats:
    """One score [n] of two confidences [n]: the later one where there are two, SKIPPED below `ask_at`."""
    if after is None:
        return np.zeros(n) if before is None else before
    if before is None:
        return after
    found: Floats = np.where(before >= ask_at, after, SKIPPED)
    found[np.isnan(before)] = np.nan
    return found


def tried(strategy: Strategy, scores: Floats, accepted: Mask) -> Mask:
    """Which requests ask the lean model, [n]."""
    if strategy == "predictive":
        return accepted
    asked: Mask = scores > SKIPPED
    return asked | accepted


def cost_each(table: Table, asked: Mask, accepted: Mask, usd_per_second: float = 0.0) -> Floats:
    """Cost of each request [n]: its calls in dollars, and its seconds at their price.

    A cascade that escalates pays for both models and waits for both; a request sent straight to either pays for
    one. Where dollars are unknown, 1 for each large call.
    """
    if not table.costs_known:
        return np.where(accepted, 0.0, 1.0)
    found: Floats = np.where(asked, table.lean_cost, 0.0) + np.where(accepted, 0.0, table.large_cost)
    if usd_per_second:
        waited = np.where(asked, table.lean_latency, 0.0) + np.where(accepted, 0.0, table.large_latency)
        found = found + usd_per_second * waited
    return found


def check_price(table: Table, usd_per_second: float) -> None:
    """Raise InputError where a price of latency cannot be weighed, because dollars or seconds are unknown."""
    if usd_per_second < 0.0:
        raise one(InputError, "usd_per_second", f"found {usd_per_second}", "write 0 or more")
    if usd_per_second and not (table.costs_known and table.latencies_known):
        raise one(
            InputError,
            "usd_per_second",
            f"found {usd_per_second}, but some records carry no cost or no latency",
            "give lean_cost, large_cost, lean_latency and large_latency with every record, or leave it out",
        )


Chooser = Callable[[Aim], Way | None]
"""A strategy: the best way that the fit part shows, or None where the records do not allow it."""
