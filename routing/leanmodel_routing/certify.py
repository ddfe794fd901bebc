"""Learn-then-Test: walk thresholds in a fixed order, test each, stop at the first that does not pass.

Angelopoulos et al., "Learn then Test", arXiv 2110.01052: with an order fixed before the certify part is
seen (fixed-sequence testing), every step that passes before the first failure is certified at once at the
full risk, with no correction for their number. All-large keeps the promise by definition, so the walk
begins after it: a test of it would spend thousands of records on showing what is true anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from leanmodel_api.policy import Method
from leanmodel_routing import betting, exact, target
from leanmodel_routing.betting import Losses
from leanmodel_routing.table import Floats, Ints, Table
from leanmodel_routing.ttest import t_p_value
from leanmodel_routing.walk import ACCEPT_ALL, Walk, losses_at

STEPS_AT_ONCE = 25
"""Steps of a walk whose bets are placed side by side."""


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

    Bets on the target are placed for many steps side by side: see `target_p_values`. The exact test says 1 where it does not apply: the fit part chose it, and the certify part may not choose
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
    steps = range(walk.start, len(walk.thresholds))
    if method == "ltt-target-betting":
        each: Iterable[float] = target_p_values(walk, steps, certify, confidence, retain, risk, seed)
    else:
        each = (step_p_value(walk, step, certify, confidence, retain, risk, method, seed) for step in steps)
    return _until_one_fails(steps, each, risk)


def _until_one_fails(steps: Sequence[int], p_values: Iterable[float], risk: float) -> WalkResult:
    found: dict[int, float] = {}
    for step, p_value in zip(steps, p_values, strict=False):
        found[step] = p_value
        if p_value > risk:
            return WalkResult(found, tuple(found)[:-1])
    return WalkResult(found, tuple(found))


def target_p_values(
    walk: Walk,
    steps: Sequence[int],
    part: Table,
    confidence: Floats,
    retain: float,
    risk: float,
    seed: int,
    factor: float = 1.0,
) -> Iterator[float]:
    """p-values of `target` at the steps on a part (confidences [n]), as they are asked for, with bets learnt on fit.

    `factor`: see `target.p_values`.
    """
    orders = target.lot(part, seed), target.lot(walk.fit, seed)
    some = max(1, min(STEPS_AT_ONCE, target.AT_ONCE // max(1, len(part) + len(walk.fit))))
    for first in range(0, len(steps), some):
        thresholds = walk.thresholds[list(steps[first : first + some])]

        def arranged(table: Table, scores: Floats, order: Ints, thresholds: Floats = thresholds) -> Floats:
            losses = np.stack([losses_at(table, scores, float(one), retain) for one in thresholds])
            return target.arrange(table, losses, order)

        learnt = arranged(walk.fit, walk.crossed, orders[1]) if len(walk.fit) else None
        found = target.p_values(arranged(part, confidence, orders[0]), retain, risk, learnt, factor)
        yield from found.tolist()


def predicted_steps(
    walk: Walk, size: int, retain: float, risk: float, method: Method, seed: int
) -> tuple[int, ...]:
    """Steps that the walk should pass with `size` certify records like the fit ones: to choose by, on fit."""
    passed: list[int] = []
    if not len(walk.fit) or (method == "ltt-exact" and not exact.applies(walk.fit, retain)):
        return ()
    factor = size / len(walk.fit)
    if method == "ltt-target-betting":
        steps = range(walk.start, len(walk.thresholds))
        each = target_p_values(walk, steps, walk.fit, walk.crossed, retain, risk, seed, factor)
        return _until_one_fails(steps, each, risk).certified
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


def better_p_value(fit: Table, certify: Table, risk: float, method: Method, seed: int) -> float:
    """p-value of `the lean model is worse than the large one`, the step after all-lean: its mean loss is
    large - lean, the promise at retain 1."""
    losses = certify.large - certify.lean
    if method == "ltt-t (approximate)":
        return t_p_value(certify, losses)
    if method == "ltt-target-betting":
        walk = Walk(np.array([ACCEPT_ALL]), 0, fit, np.zeros(len(fit)))
        return next(target_p_values(walk, (0,), certify, np.zeros(len(certify)), 1.0, risk, seed))
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
    bets = None
    if method == "ltt-target-betting":
        bets = target.arrange(certify, losses[None, :], target.lot(certify, seed))

    def passes(factor: float) -> bool:
        if bets is not None:
            return bool(bets.size and target.p_values(bets, retain, risk, bets, factor)[0] <= risk)
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
