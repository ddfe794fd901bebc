"""The cases by name: what the walk's outcome means, and what to tell the user."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from leanmodel_api.policy import Method, Outcome, PolicyKind
from leanmodel_api.routing_policy import Strategy
from leanmodel_routing import figures
from leanmodel_routing.certify import WalkResult, better_p_value, records_needed
from leanmodel_routing.policies.ways import cost_each, tried
from leanmodel_routing.table import Floats, Mask, Table
from leanmodel_routing.ttest import FEWEST as T_FEWEST
from leanmodel_routing.walk import ACCEPT_ALL, Walk


@dataclass(frozen=True)
class Decision:
    """A case: kind of policy, certified step (None: all-large), its name and message, p-value, records needed.

    The kind `cascade` stands for whichever strategy the walk was of; so does the outcome's name.
    """

    kind: PolicyKind
    step: int | None
    outcome: Outcome
    message: str
    p_value: float
    needed: int | None = None


@dataclass(frozen=True)
class Spend:
    """How a strategy's calls are paid for."""

    strategy: Strategy
    usd_per_second: float = 0.0

    def of(self, table: Table, scores: Floats, accepted: Mask) -> float:
        """Mean cost per request of accepting these [n]; the large share where costs are unknown."""
        asked = tried(self.strategy, scores, accepted)
        return float(np.mean(cost_each(table, asked, accepted, self.usd_per_second)))

    def all_large(self, table: Table) -> float:
        """Mean cost per request had all gone to the large model."""
        none = np.zeros(len(table), dtype=np.bool_)
        return float(np.mean(cost_each(table, none, none, self.usd_per_second)))


def decide_case(
    walk: Walk,
    result: WalkResult,
    certify: Table,
    scores: Floats,
    retain: float,
    risk: float,
    method: Method,
    seed: int,
    spend: Spend | None = None,
) -> Decision:
    """Name the case: the cheapest certified step by `spend` (a cascade's), or all-large with what to do."""
    costs = spend or Spend("cascade")
    if not result.certified:
        return _nothing_certified(walk, result, certify, scores, retain, risk, method, seed)
    prices = {
        index: costs.of(certify, scores, scores >= walk.thresholds[index]) for index in result.certified
    }
    step = min(result.certified, key=lambda index: (prices[index], -index))
    p_value = result.p_values[step]
    lean, large = figures.quality_of(certify, certify.lean), figures.quality_of(certify, certify.large)
    if certify.costs_known and prices[step] >= costs.all_large(certify):
        return Decision(
            "all-large",
            None,
            "no-saving",
            "the promise could be kept with lean answers, but the lean calls cost more than they save; "
            "all requests go to the large model: make the lean model cheaper, or its answers better",
            p_value,
        )
    promise = f"{_percent(retain)} of the large model's quality ({large:.3f} on the certify part)"
    if float(walk.thresholds[step]) > ACCEPT_ALL:
        share = float(np.mean(scores < walk.thresholds[step]))
        message = f"the pair keeps {promise} with {_percent(share)} of the requests sent to the large model"
        return Decision("cascade", step, "cascade-certified", message, p_value)
    if better_p_value(walk.fit, certify, risk, method, seed) <= risk:
        message = (
            f"the lean model is at least as good as the large one ({lean:.3f} to {large:.3f}) and takes all"
        )
        return Decision("all-lean", step, "lean-at-least-as-good", message, p_value)
    message = f"the lean model ({lean:.3f}) alone keeps {promise} and takes all; nothing is escalated"
    return Decision("all-lean", step, "lean-keeps-promise", message, p_value)


def _nothing_certified(
    walk: Walk,
    result: WalkResult,
    certify: Table,
    scores: Floats,
    retain: float,
    risk: float,
    method: Method,
    seed: int,
) -> Decision:
    p_value = result.p_values[walk.start]
    needed = records_needed(walk, certify, scores, retain, risk, method, seed)
    if method == "ltt-t (approximate)" and len(certify) < T_FEWEST:
        needed = T_FEWEST - len(certify)
    if needed is not None:
        message = (
            f"{len(certify)} certify records are too few to show that {_percent(retain)} is kept: "
            f"about {needed} more are needed as it looks; until then all requests go to the large model"
        )
        return Decision("all-large", None, "too-few-records", message, p_value, needed)
    if certify.aggregate == "balanced":
        counts = np.bincount(certify.stratum, minlength=len(certify.strata))
        if counts.min() == 0:
            name = certify.strata[int(counts.argmin())]
            message = f"the certify part holds no record of class {name!r}: give records of every class"
            return Decision("all-large", None, "too-few-records", message, 1.0)
    message = (
        f"even the first step towards the lean model does not keep {_percent(retain)} of the large model's quality "
        "on the certify part; all requests go to the large model: lower the promise, or improve the lean model"
    )
    return Decision("all-large", None, "promise-not-shown", message, p_value)


def with_total(decision: Decision, certify: int, total: int) -> Decision:
    """Say also how many records that is in all, where the parts stay as large as they are to each other."""
    if decision.needed is None:
        return decision
    in_all = math.ceil(decision.needed * total / certify)
    return replace(decision, message=f"{decision.message} (about {in_all} more records over the three parts)")


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
