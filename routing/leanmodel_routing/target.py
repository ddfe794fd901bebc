"""Tests by betting towards a target: distribution-free p-values with nearly the power of tests that know more.

As in `betting`, wealth is multiplied by 1 - f·loss, record by record, and 1/wealth is a p-value: under `mean loss
≥ 0` no choice of f ∈ [0, 1/upper] that looks only at earlier records can make it grow on average. What differs is
what f is for. A mixture of fixed fractions grows as fast as it can and never stops; a test needs 1/risk by the last
record, and nothing beyond. The play with the greatest chance of that holds what replicates a digital option (for
Brownian motion: Kulldorff, SIAM J. Control Optim. 31, 1993; Browne, Adv. Appl. Probab. 31, 1999; bets that are
recalculated for what is still to be won, for bounded means: Voráček & Orabona, "STaR-Bets", arXiv 2505.22422).

Losses here are many small gains and few harms, so the option is one on a count of harms, which is our own choice: with
σ² the mean square of a loss and h its mean cube by σ² (the size of a harm, where there are nearly only harms), m records
to come bring Poisson(λ = m·σ²/h²) of them under the hypothesis. Let k be the count with P(≤ k) = q = wealth · risk; one
harm must leave P(≤ k - 1), so

    f = (1 - P(≤ k - 1) / P(≤ k)) / h.

Where qualities are 0 or 1 and the pair only loses this is the binomial test, replicated; where λ is large it is the play
for Brownian motion, f = φ(Φ⁻¹(q)) / (q · σ · √m), and the test the z-test. σ² and h are learnt from the fit part and from
what has been seen. That losses are neither Poisson nor Brownian costs power, never validity. The stake is capped below
1/upper, where one total harm would end the game, unless so few records are left that only the whole will do.

Two prices are paid. The p-value is of use at the risk that was bet for: a test that passes stops there, so it says
"at most the risk", seldom less. And the bets depend on the order of the records, which is drawn by seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincc, ndtri, pdtrik

from leanmodel_routing.table import Floats, Ints, Table

STAKE = 0.9
"""Cap of f · upper; with 1 about 4 in 100 clear cases are lost to a harm that comes early."""
BOLD = 1.5
"""The cap gives way where a stake of this many times what an unharmed run needs is above it."""
LOOKS = 500
"""Bets are renewed so often at most; longer runs hold each for several records."""
PRIOR_RECORDS = 50.0
"""How many records the fit part's moments count for."""
HALF = 0.5
"""Total harms that are added to the fit part: one without any would have every harm come as a surprise."""
MANY = 1_000.0
"""Above so many expected harms the normal distribution takes the place of Poisson's."""
AT_ONCE = 2_000_000
"""Losses in memory at a time."""


def p_values(
    losses: Floats, upper: float, risk: float, evidence: Floats | None = None, factor: float = 1.0
) -> Floats:
    """p-values [tests] of `mean loss ≥ 0` from losses [tests, n] in an order that was drawn by lot, each ≤ upper.

    `evidence`: losses [tests, m] of other, independent records. `factor`: as though each record had come so many times
    in a row; a prediction, not a test.
    """
    tests, n = losses.shape
    goal, horizon = -math.log(risk), n * factor
    seen = _learnt(evidence, tests, upper)
    needed = goal / np.maximum(horizon * seen.gain, 1e-12)
    cap = np.clip(BOLD * needed * upper, STAKE, 1.0) / upper
    wealth = np.zeros(tests)
    edges = np.unique(np.linspace(0, n, min(n, LOOKS) + 1).astype(np.int64))
    for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        stake = _stake(wealth - goal, seen.square, seen.harm, horizon - first * factor, cap)
        part = losses[:, first:end]
        with np.errstate(divide="ignore"):
            wealth = wealth + factor * np.log1p(np.maximum(-stake[:, None] * part, -1.0)).sum(axis=1)
        seen = seen.after(part, factor)
    found: Floats = np.exp(-np.maximum(wealth, 0.0))
    return found


@dataclass(frozen=True)
class _Moments:
    """Sums of squares and of cubes [tests] over `records`, and what an unharmed record gains on average [tests]."""

    squares: Floats
    cubes: Floats
    records: float
    gain: Floats

    @property
    def square(self) -> Floats:
        found: Floats = self.squares / self.records
        return found

    @property
    def harm(self) -> Floats:
        found: Floats = self.cubes / self.squares
        return found

    def after(self, losses: Floats, factor: float) -> _Moments:
        """With losses [tests, some] seen besides."""
        squares = losses * losses
        return _Moments(
            self.squares + factor * squares.sum(axis=1), self.cubes + factor * (squares * losses).sum(axis=1),
            self.records + factor * losses.shape[1], self.gain,
        )  # fmt: skip


def _learnt(evidence: Floats | None, tests: int, upper: float) -> _Moments:
    """What is known before the first record."""
    known: Floats = np.zeros((tests, 0)) if evidence is None else evidence
    records = known.shape[1] + 2 * HALF
    weight = min(1.0, PRIOR_RECORDS / records)
    return _Moments(
        weight * ((known**2).sum(axis=1) + HALF * upper**2),
        weight * ((known**3).sum(axis=1) + HALF * upper**3),
        weight * records,
        np.maximum(-known, 0.0).mean(axis=1) if known.shape[1] else np.full(tests, upper / 10.0),
    )


def _stake(short: Floats, square: Floats, harm: Floats, left: float, cap: Floats) -> Floats:
    """What to stake [tests]: `short` is log(wealth · risk), 0 or more where the target is reached, which ends the game."""
    share = np.exp(np.clip(short, -600.0, -1e-9))
    point = ndtri(share)
    slope = np.exp(-0.5 * point * point) / (math.sqrt(2.0 * math.pi) * share)
    smooth = slope / np.sqrt(square * left)
    size = np.maximum(harm, 1e-9)
    expected = square * left / (size * size)
    few = (harm > 0.0) & (expected < MANY)
    count = pdtrik(share, np.where(few, expected, 1.0))
    can = few & np.isfinite(count) & (count > 0.0)
    left_over = gammaincc(np.where(can, count, 1.0), np.where(can, expected, 1.0)) / share
    # Where not even a run without harm would do at this stake, only the whole can.
    found = np.where(few, np.where(can, (1.0 - left_over) / size, np.inf), smooth)
    stopped: Floats = np.where(short >= 0.0, 0.0, np.clip(found, 0.0, cap))
    return stopped


def lot(table: Table, seed: int) -> Ints:
    """An order [n] of the records that does not depend on how they came, drawn by seed without a look at losses."""
    drawn: Ints = np.random.default_rng(seed).permutation(len(table))
    found: Ints = table.canonical[drawn]
    return found


def arrange(table: Table, losses: Floats, order: Ints) -> Floats:
    """Losses [tests, n] as independent ones of the aggregated mean, [tests, bets], in the given order of records.

    With weights of the records' own, w·l/max(w) has the sign of the weighted mean and the same bound. Balanced over
    classes, records are dealt into as many blocks as the rarest class has records, each class evenly; a block's loss is
    the mean over classes of its means, whose expectation is the balanced mean and whose mean over the blocks has the
    variance of the stratified estimate. Without a record of some class there is nothing to bet on: [tests, 0].
    """
    if table.aggregate == "mean":
        weighed: Floats = losses[:, order] * (table.weight[order] / table.weight.max())
        return weighed
    counts = np.bincount(table.stratum, minlength=len(table.strata))
    blocks = int(counts.min())
    total: Floats = np.zeros((len(losses), blocks))
    for code in range(len(counts)) if blocks else ():
        members = order[table.stratum[order] == code]
        # np.linspace deals the members to the blocks in runs; each run has at least one.
        edges = np.linspace(0, len(members), blocks + 1).astype(np.int64)
        sums = np.add.reduceat(losses[:, members], edges[:-1], axis=1)
        total += sums / np.diff(edges)
    total /= max(len(counts), 1)
    return total
