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
from leanmodel_routing import betting, exact
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
    walk: Walk,
    step: int,
    certify: Table,
    confidence: Floats,
    retain: float,
    risk: float,
    method: Method,
    seed: int,
) -> float:
    """p-value of `the promise is broken at this step's threshold` on the certify part (confidences [n]).

    The exact test says 1 where it does not apply: the fit part chose it, and the certify part may not choose
    another.
    """
    threshold = float(walk.thresholds[step])
    if method == "ltt-exact":
        if not exact.applies(certify, retain):
            return 1.0
        return exact.p_value(exact.harms_of(certify, confidence >= threshold), retain, risk)
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
        found[step] = step_p_value(walk, step, certify, confidence, retain, risk, method, seed)
        if found[step] > risk:
            break
        passed.append(step)
    return WalkResult(found, tuple(passed))


def predicted_steps(
    walk: Walk, size: int, retain: float, risk: float, method: Method, seed: int
) -> tuple[int, ...]:
    """Steps that the walk should pass with `size` certify records like the fit ones: to choose by, on fit."""
    passed: list[int] = []
    if not len(walk.fit) or (method == "ltt-exact" and not exact.applies(walk.fit, retain)):
        return ()
    factor = size / len(walk.fit)
    for step in range(walk.start, len(walk.thresholds)):
        threshold = float(walk.thresholds[step])
        if method == "ltt-exact":
            like = exact.harms_of(walk.fit, walk.crossed >= threshold)
            p_value = exact.p_value(tuple(one.scaled(factor) for one in like), retain, risk)
        else:
            found = evidence_of(walk.fit, losses_at(walk.fit, walk.crossed, threshold, retain), retain, seed)
            p_value = betting.p_from_log_wealth(log_wealth(found.scaled(factor), found))
        if p_value > risk:
            break
        passed.append(step)
    return tuple(passed)


def predicted_lean_share(
    walk: Walk, size: int, retain: float, risk: float, method: Method, seed: int
) -> float:
    """Lean share that the walk should reach; see `predicted_steps`."""
    steps = predicted_steps(walk, size, retain, risk, method, seed)
    return float(np.mean(walk.crossed >= float(walk.thresholds[steps[-1]]))) if steps else 0.0


def better_p_value(fit: Table, certify: Table, method: Method, seed: int) -> float:
    """p-value of `the lean model is worse than the large one`, the step after all-lean: its mean loss is
    large - lean, the promise at retain 1."""
    losses = certify.large - certify.lean
    if method == "ltt-t (approximate)":
        return t_p_value(certify, losses)
    learnt = evidence_of(fit, fit.large - fit.lean, 1.0, seed) if len(fit) else None
    return betting.p_from_log_wealth(log_wealth(evidence_of(certify, losses, 1.0, seed), learnt))


def records_needed(
    walk: Walk, certify: Table, confidence: Floats, retain: float, risk: float, method: Method, seed: int
) -> int | None:
    """How many more certify records the first step would need if they came out like these; None: no number
    helps.

    The certify part is scaled up until it passes. A class that is missing, or a mean loss that is not below 0,
    cannot be mended by more of the same.
    """
    threshold = float(walk.thresholds[walk.start])
    losses = losses_at(certify, confidence, threshold, retain)
    if float(certify.mass @ losses) >= 0.0:
        return None
    found = evidence_of(certify, losses, retain, seed)
    counts = exact.harms_of(certify, confidence >= threshold) if method == "ltt-exact" else ()

    def passes(factor: float) -> bool:
        if counts:
            return exact.p_value(tuple(one.scaled(factor) for one in counts), retain, risk) <= risk
        return betting.p_from_log_wealth(log_wealth(found.scaled(factor), found.scaled(factor))) <= risk

    low, high = 1.0, 2.0
    while not passes(high):
        low, high = high, high * 2.0
        if high > 1e6 or (counts and high * len(certify) > 1e7):
            return None
    while high / low > 1.005:
        middle = math.sqrt(low * high)
        if passes(middle):
            high = middle
        else:
            low = middle
    return max(1, math.ceil((high - 1.0) * len(certify)))
