"""Exact tests of the promise where an answer is either right or wrong (qualities 0 and 1).

Betting is valid for every bounded loss and pays for that: with 154 records of a class it lets one harm pass
at a promise of 98% where the binomial distribution lets two. A *harm* is a record that the large model gets
right and the routed pair gets wrong. Given how many records the large model gets right, harms are binomial,
and the promise `routed ≥ retain · large` holds if the rate of harms among them is at most 1 - retain. Records
that the pair gets right and the large model wrong count as nothing here, which is the careful side; where
there are many of them betting, which counts them, is the stronger test.

Balanced over two classes with rates of harm r1 and r2 the promise is `u·r1 + (1 - u)·r2 ≤ 1 - retain`, with u
the first class's share of what the large model gets right. Neither the split of the harm nor u is known: the
p-value is the largest over all splits, and over an interval for u, whose chance to be wrong is added (Berger &
Boos, "P values maximized over a confidence set for the nuisance parameter", JASA 1994).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanmodel_routing.table import Floats, Mask, Table
from leanmodel_routing.tails import clopper_pearson_upper

CELLS = 200
"""Cells over the splits of the harm between two classes; a cell's p-value is bounded from above."""
MOST_AT_ONCE = 500_000
"""Numbers in one array of cells."""
NUISANCE_SHARE = 0.05
"""Share of the risk that is spent on the interval for u."""


@dataclass(frozen=True)
class Harms:
    """One class: its records, those that the large model gets right, and the harms among these."""

    records: int
    right: int
    harms: int

    def scaled(self, factor: float) -> Harms:
        """As though there were `factor` times as many records of each kind, rounded."""
        return Harms(*(round(count * factor) for count in (self.records, self.right, self.harms)))


def applies(table: Table, retain: float) -> bool:
    """Whether the test can be used: qualities 0 or 1, equal weights, one class or two, room for some harm."""
    binary = np.isin(table.lean, (0.0, 1.0)).all() and np.isin(table.large, (0.0, 1.0)).all()
    return bool(binary and retain < 1.0 and len(table.strata) <= 2 and np.ptp(table.weight) == 0.0)


def harms_of(table: Table, accepted: Mask) -> tuple[Harms, ...]:
    """Counts per class for an accept mask [n], in the order of the table's classes."""
    right = table.large == 1.0
    harm = right & accepted & (table.lean == 0.0)
    return tuple(
        Harms(int(of.sum()), int((right & of).sum()), int((harm & of).sum()))
        for of in (table.stratum == code for code in range(len(table.strata)))
    )


def p_value(classes: tuple[Harms, ...], retain: float, risk: float) -> float:
    """p-value of `the promise is broken` from the counts of one class or two.

    `risk` sets only how much is spent on the interval for u; 1 where a class has nothing that the large
    model gets right, since then nothing is known of its rate.
    """
    if min(one.right for one in classes) == 0:
        return 1.0
    budget = 1.0 - retain
    if len(classes) == 1:
        only = classes[0]
        return float(_cumulative(only.right, np.array([budget]), only.harms)[0, -1])
    return _two_classes(classes[0], classes[1], budget, NUISANCE_SHARE * risk)


def _two_classes(one: Harms, other: Harms, budget: float, spent: float) -> float:
    shares = one.right / one.records, other.right / other.records
    # Weights of the statistic: any fixed ones are valid, the estimates give the best order of outcomes.
    weight = shares[0] / (shares[0] + shares[1])
    seen = weight * one.harms / one.right + (1.0 - weight) * other.harms / other.right
    if seen >= budget:
        return 1.0
    low_one, high_one = _share_interval(one, spent / 4)
    low_other, high_other = _share_interval(other, spent / 4)
    least = low_one / (low_one + high_other)
    most = high_one / (high_one + low_other)
    if least <= 0.0 or most >= 1.0:
        return 1.0
    worst = _largest(one, other, seen, weight, budget, (least, most))
    return min(1.0, worst + spent)


def _share_interval(counts: Harms, tail: float) -> tuple[float, float]:
    """Clopper-Pearson bounds of the share that the large model gets right, each wrong with chance `tail`."""
    wrong = counts.records - counts.right
    return 1.0 - clopper_pearson_upper(wrong, counts.records, 1.0 - tail), clopper_pearson_upper(
        counts.right, counts.records, 1.0 - tail
    )


def _largest(
    one: Harms, other: Harms, seen: float, weight: float, budget: float, share: tuple[float, float]
) -> float:
    """An upper bound of P(statistic ≤ seen) over all rates of harm that break the promise.

    The chance falls with either rate, so only the edge of the hypothesis matters. It is cut into cells along
    the first rate; within a cell the lower end of both rates is taken. The cells that decide are cut again.
    """
    edges = np.linspace(0.0, min(1.0, budget / share[0]), CELLS + 1)
    bounds = _tail(one, other, seen, weight, edges[:-1], _other_rate(edges[1:], budget, share))
    truth = _tail(one, other, seen, weight, edges[1:], _other_rate(edges[1:], budget, share)).max()
    again = np.flatnonzero(bounds > truth)
    rest = bounds[bounds <= truth]
    part = np.linspace(0.0, 1.0, CELLS // 4 + 1)
    width = edges[1] - edges[0]
    finer = [float(rest.max(initial=0.0))]
    # As many cells at once as stay small in memory: a call costs more than its arithmetic.
    most = max(1, MOST_AT_ONCE // (len(part) * (one.harms + other.harms + 1)))
    for cells in (again[first : first + most] for first in range(0, len(again), most)):
        inner = edges[cells][:, None] + width * part
        low, high = inner[:, :-1].ravel(), inner[:, 1:].ravel()
        finer.append(float(_tail(one, other, seen, weight, low, _other_rate(high, budget, share)).max()))
    return max(finer)


def _other_rate(rate: Floats, budget: float, share: tuple[float, float]) -> Floats:
    """The least second rate that breaks the promise beside the first, over the interval for u."""
    ends = [(budget - u * rate) / (1.0 - u) for u in share]
    found: Floats = np.clip(np.minimum(*ends), 0.0, 1.0)
    return found


def _tail(one: Harms, other: Harms, seen: float, weight: float, rates: Floats, others: Floats) -> Floats:
    """P(weight · h1/n1 + (1 - weight) · h2/n2 ≤ seen) for each pair of rates."""
    slack = seen + 1e-12
    most = min(one.right, int(slack * one.right / weight))
    first = np.arange(most + 1)
    left = np.floor((slack - weight * first / one.right) * other.right / (1.0 - weight) + 1e-9)
    second = np.clip(left, 0, other.right).astype(np.int64)
    below = _cumulative(other.right, others, int(second.max()))
    found: Floats = (_masses(one.right, rates, most) * below[:, second]).sum(axis=1)
    return found


def _masses(n: int, rates: Floats, most: int) -> Floats:
    """Binomial chances [len(rates), most + 1] of 0 to `most` among n."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])
    count = np.arange(most + 1)
    ways = logs[n] - logs[count] - logs[n - count]
    safe = np.clip(rates, 1e-300, 1.0 - 1e-16)[:, None]
    chance = np.exp(ways + count * np.log(safe) + (n - count) * np.log1p(-safe))
    found: Floats = np.minimum(chance, 1.0)
    return found


def _cumulative(n: int, rates: Floats, most: int) -> Floats:
    """Binomial chances [len(rates), most + 1] of at most 0 to `most` among n."""
    found: Floats = np.minimum(np.cumsum(_masses(n, rates, most), axis=1), 1.0)
    return found
