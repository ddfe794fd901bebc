"""Learn-then-Test: walk thresholds in a fixed order, test each, stop at the first that does not pass.

Angelopoulos et al., "Learn then Test", arXiv 2110.01052: with an order fixed before the certify part is
seen (fixed-sequence testing), every step that passes before the first failure is certified at once at the
full risk, with no correction for their number. All-large keeps the promise by definition, so the walk
begins after it: a test of it would spend thousands of records on showing what is true anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from leanmodel_api.policy import Method
from leanmodel_routing import betting
from leanmodel_routing.betting import Losses
from leanmodel_routing.table import Floats, Table
from leanmodel_routing.ttest import t_p_value
from leanmodel_routing.walk import Walk, losses_at


@dataclass(frozen=True)
class WalkResult:
    """What the walk found: p-values of the tested steps by index, and the certified ones in order."""

    p_values: dict[int, float]
    certified: tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """One step's losses on a part, ready to be bet on.

    Plain: `one`. Balanced: the rarest class, the rest, and the rarest one's share; None where a class is
    missing.
    """

    one: Losses | None
    two: tuple[Losses, Losses] | None = None
    share: float = 1.0

    def scaled(self, factor: float) -> Evidence:
        """As though there were `factor` times as many records of each kind."""
        two = None if self.two is None else (self.two[0].scaled(factor), self.two[1].scaled(factor))
        return Evidence(None if self.one is None else self.one.scaled(factor), two, self.share)


def evidence_of(table: Table, losses: Floats, upper: float, seed: int) -> Evidence:
    """Losses [n] as evidence on the aggregated mean.

    With weights of the records' own, w·l/max(w) has the sign of the weighted mean and the same bound.
    """
    if table.aggregate == "mean":
        return Evidence(Losses.of(losses * (table.weight / table.weight.max()), upper))
    counts = np.bincount(table.stratum, minlength=len(table.strata))
    if len(counts) == 1:
        return Evidence(Losses.of(losses, upper))
    if counts.min() == 0:
        return Evidence(None)
    rare, rest, share = betting.split_balanced(table, losses, upper, seed)
    return Evidence(None, (rare, rest), share)


def log_wealth(found: Evidence, learnt: Evidence | None) -> float:
    """Log-wealth against `aggregated mean loss ≥ 0`; 0 (no evidence) where a class is missing."""
    if found.two is not None:
        return betting.balanced_log_wealth(*found.two, found.share, learnt.two if learnt else None)
    if found.one is None:
        return 0.0
    return float(betting.mixture_log_wealth(found.one, np.zeros(1), learnt.one if learnt else None)[0])


def step_p_value(
    walk: Walk, step: int, certify: Table, confidence: Floats, retain: float, method: Method, seed: int
) -> float:
    """p-value of `the promise is broken at this step's threshold` on the certify part (confidences [n])."""
    threshold = float(walk.thresholds[step])
    losses = losses_at(certify, confidence, threshold, retain)
    if method != "ltt-betting":
        return t_p_value(certify, losses)
    learnt = None
    if len(walk.fit):
        learnt = evidence_of(walk.fit, losses_at(walk.fit, walk.crossed, threshold, retain), retain, seed)
    return betting.p_from_log_wealth(log_wealth(evidence_of(certify, losses, retain, seed), learnt))


def take_walk(
    walk: Walk, certify: Table, confidence: Floats, retain: float, risk: float, method: Method, seed: int
) -> WalkResult:
    """Walk over the certify part and stop at the first step whose p-value is above `risk`."""
    found: dict[int, float] = {}
    passed: list[int] = []
    for step in range(walk.start, len(walk.thresholds)):
        found[step] = step_p_value(walk, step, certify, confidence, retain, method, seed)
        if found[step] > risk:
            break
        passed.append(step)
    return WalkResult(found, tuple(passed))


def predicted_lean_share(walk: Walk, size: int, retain: float, risk: float, seed: int) -> float:
    """Lean share that the walk should reach with `size` certify records like the fit ones: to choose by, on
    fit.
    """
    reached = 0.0
    if not len(walk.fit):
        return reached
    factor = size / len(walk.fit)
    for step in range(walk.start, len(walk.thresholds)):
        threshold = float(walk.thresholds[step])
        like = evidence_of(walk.fit, losses_at(walk.fit, walk.crossed, threshold, retain), retain, seed)
        if betting.p_from_log_wealth(log_wealth(like.scaled(factor), like)) > risk:
            break
        reached = float(np.mean(walk.crossed >= threshold))
    return reached


def better_p_value(fit: Table, certify: Table, method: Method, seed: int) -> float:
    """p-value of `the lean model is worse than the large one`, the step after all-lean: its mean loss is
    large - lean, the promise at retain 1."""
    losses = certify.large - certify.lean
    if method != "ltt-betting":
        return t_p_value(certify, losses)
    learnt = evidence_of(fit, fit.large - fit.lean, 1.0, seed) if len(fit) else None
    return betting.p_from_log_wealth(log_wealth(evidence_of(certify, losses, 1.0, seed), learnt))


def records_needed(
    walk: Walk, certify: Table, confidence: Floats, retain: float, risk: float, seed: int
) -> int | None:
    """How many more certify records the first step would need if they came out like these; None: no number
    helps.

    Betting's log-wealth grows with the records, so the certify part is scaled up until it passes. A class
    that is missing, or a mean loss that is not below 0, cannot be mended by more of the same.
    """
    losses = losses_at(certify, confidence, float(walk.thresholds[walk.start]), retain)
    if float(certify.mass @ losses) >= 0.0:
        return None
    found = evidence_of(certify, losses, retain, seed)
    low, high = 1.0, 2.0
    while betting.p_from_log_wealth(log_wealth(found.scaled(high), found.scaled(high))) > risk:
        low, high = high, high * 2.0
        if high > 1e6:
            return None
    while high / low > 1.005:
        middle = math.sqrt(low * high)
        if betting.p_from_log_wealth(log_wealth(found.scaled(middle), found.scaled(middle))) > risk:
            low = middle
        else:
            high = middle
    return max(1, math.ceil((high - 1.0) * len(certify)))
