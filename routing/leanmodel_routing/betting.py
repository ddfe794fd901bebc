"""Tests by betting: distribution-free p-values for the mean of a bounded loss.

Start with a wealth of 1 and stake a fraction of it, record by record, against the hypothesis that the mean
loss is at least m: wealth is multiplied by 1 - f·(l - m)/(u - m), never negative because l ≤ u. Under the
hypothesis the expected wealth never exceeds 1, for every fraction f in [0, 1] and so for every fixed
mixture of them; Markov's inequality makes 1/wealth a p-value. (Waudby-Smith & Ramdas, "Estimating means of
bounded random variables by betting", JRSS-B 2024, arXiv 2010.09686.)

Two choices are our own. The fractions are mixed, and the mixture is learnt on the *fit* part by continuing
its wealth there (Cover's universal portfolio): the certify part then starts with bets that have already
paid elsewhere, which is allowed since they do not look at it. And the final wealth is taken, not its
maximum on the way: it depends on no order of the records, so a shuffled file gives the same certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanmodel_routing.table import Floats, Ints, Table

FRACTIONS: Floats = np.array(
    [0.0, 0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0]
)
PRIOR: Floats = np.array([4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4, 6, 6, 10, 20], dtype=np.float64)
"""Before any evidence most weight lies on bold bets: with a slack of 1% and no harm seen only they pay in
time.
"""
PRIOR = PRIOR / PRIOR.sum()
KEPT_PRIOR = 0.15
"""Share of the mixture that stays as it was, should the fit part have been lucky."""
MOST_VALUES = 257


@dataclass(frozen=True)
class Losses:
    """Losses of one class (or of all records) as distinct values with their counts, each at most `upper`."""

    values: Floats
    counts: Floats
    upper: float

    @classmethod
    def of(cls, losses: Floats, upper: float) -> Losses:
        """Distinct values and counts; too many of them are put on a grid.

        A loss between two grid points is shared between them so that its mean stays what it is. The log of
        a wealth is concave in the loss, so this can only lower the wealth: the test stays valid, whatever
        the grid.
        """
        values, times = np.unique(losses, return_counts=True)
        if len(values) <= MOST_VALUES:
            return cls(values.astype(np.float64), times.astype(np.float64), upper)
        low, high = float(values[0]), float(values[-1])
        grid = np.linspace(low, high, MOST_VALUES)
        place = (losses - low) / (high - low) * (MOST_VALUES - 1)
        below = np.minimum(place.astype(np.int64), MOST_VALUES - 2)
        part = place - below
        mass = np.bincount(below, weights=1.0 - part, minlength=MOST_VALUES).astype(np.float64)
        mass = mass + np.bincount(below + 1, weights=part, minlength=MOST_VALUES)
        held = mass > 0.0
        return cls(grid[held], mass[held], upper)

    def scaled(self, factor: float) -> Losses:
        """As though there were `factor` times as many records of each kind."""
        return Losses(self.values, self.counts * factor, self.upper)

    @property
    def n(self) -> float:
        """Number of records."""
        return float(self.counts.sum())


def log_wealths(losses: Losses, means: Floats) -> Floats:
    """Log-wealth [len(means), len(FRACTIONS)] of each fraction against each hypothesis `mean loss ≥ m`."""
    room = np.maximum(losses.upper - means, 1e-12)
    ratio = (losses.values[None, :] - means[:, None]) / room[:, None]
    with np.errstate(divide="ignore"):
        grown = np.log1p(np.maximum(-FRACTIONS[None, :, None] * np.minimum(ratio, 1.0)[:, None, :], -1.0))
    # A count of 0 cannot occur, so no 0 · -inf does.
    found: Floats = grown @ losses.counts
    return found


def mixture_log_wealth(losses: Losses, means: Floats, evidence: Losses | None = None) -> Floats:
    """Log-wealth [len(means)] of the mixture, learnt on `evidence` (losses of the fit part) where there is
    any.
    """
    weights: Floats = np.broadcast_to(PRIOR, (len(means), len(PRIOR)))
    if evidence is not None and evidence.n > 0:
        learnt = np.log(PRIOR)[None, :] + log_wealths(evidence, means)
        learnt = np.exp(learnt - learnt.max(axis=1, keepdims=True))
        weights = KEPT_PRIOR * PRIOR + (1.0 - KEPT_PRIOR) * learnt / learnt.sum(axis=1, keepdims=True)
    logs = np.log(weights) + log_wealths(losses, means)
    top = logs.max(axis=1)
    found: Floats = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
    return found


def p_from_log_wealth(log_wealth: float) -> float:
    """p-value min(1, 1/wealth)."""
    return float(np.exp(min(0.0, -log_wealth)))


def betting_p_value(losses: Floats, upper: float, evidence: Floats | None = None) -> float:
    """p-value of the hypothesis `mean loss ≥ 0` from independent losses [n], each at most `upper`.

    `evidence`: losses of other, independent records that shape the bets.
    """
    learnt = None if evidence is None or not len(evidence) else Losses.of(evidence, upper)
    return p_from_log_wealth(float(mixture_log_wealth(Losses.of(losses, upper), np.zeros(1), learnt)[0]))


def balanced_log_wealth(
    rare: Losses, rest: Losses, share: float, evidence: tuple[Losses, Losses] | None = None
) -> float:
    """Log-wealth against `share · mean(rare) + (1 - share) · mean(rest) ≥ 0` from two independent samples.

    Under the hypothesis there is a c with mean(rare) ≥ c and mean(rest) ≥ -c·share/(1 - share). For each c
    the product of the two wealths is a wealth against that pair, so the least over all c is one against the
    hypothesis (the union over strata of Spertus & Stark, arXiv 2207.03379). Between two grid points the
    lower c is used for `rare` and the upper one for `rest`, which is the harder test for both.
    """
    odds = share / (1.0 - share)
    slack = max(1.0 - rare.upper, 0.002)
    near = np.arange(0.0, 2.5, 1.0 / 16.0) * slack
    far = near[-1] * 1.4 ** np.arange(1, 24)
    half = np.concatenate([near, far])
    grid = np.unique(np.concatenate([-half[::-1], half]))
    # Means outside [-1, upper] are impossible, so c need not go there.
    low, high = max(-1.0, -rest.upper / odds), min(rare.upper, 1.0 / odds)
    grid = np.concatenate([[low], grid[(grid > low) & (grid < high)], [high]])
    below, above = grid[:-1], grid[1:]
    learnt = evidence or (None, None)
    wealth = mixture_log_wealth(rare, below, learnt[0]) + mixture_log_wealth(rest, -above * odds, learnt[1])
    return float(wealth.min())


def split_balanced(table: Table, losses: Floats, upper: float, seed: int) -> tuple[Losses, Losses, float]:
    """The rarest class, the other classes, and the rarest one's share of the balanced mean (1 / classes).

    With more than two classes the others are joined in blocks: each holds an equal share of the records of
    each of them (at least one), and its loss is the mean over classes of the in-block means, which is
    bounded by `upper` and has exactly their balanced mean as its expectation. Which records meet in a block
    is drawn by seed, without a look at their losses, and no record is in two blocks, so blocks are
    independent given the class sizes.
    """
    counts = np.bincount(table.stratum, minlength=len(table.strata))
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    rare = losses[table.stratum == order[0]]
    others = order[1:]
    if len(others) == 1:
        rest = losses[table.stratum == others[0]]
    else:
        blocks = int(counts[others].min())
        rng = np.random.default_rng(seed)
        total: Floats = np.zeros(blocks)
        for code in others:
            members: Ints = rng.permutation(np.flatnonzero(table.stratum == code))
            block = np.arange(len(members)) % blocks
            sums = np.bincount(block, weights=losses[members], minlength=blocks)
            total += sums / np.bincount(block, minlength=blocks)
        rest = total / len(others)
    return Losses.of(rare, upper), Losses.of(rest, upper), 1.0 / len(order)
