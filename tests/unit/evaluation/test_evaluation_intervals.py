"""Intervals: known values, ends in order, and coverage where the truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_evaluation.intervals import around, bootstrap, exact, mean_of_shares, resamples, wilson


def test_wilson_known_values() -> None:
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    found = wilson(81, 263)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    found = wilson(0, 20)
    assert (found.low, found.high) == (0, pytest.approx(0.1611, abs=5e-5))


@given(st.integers(0, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share(pair: tuple[int, int]) -> None:
    hits, n = pair
    found = wilson(hits, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert n == 0 or (found.high - found.low) > 0


def test_all_right_still_has_an_interval() -> None:
    found = mean_of_shares([wilson(100, 100), wilson(20, 20)])
    assert found.value == 1 and found.high == 1
    assert 0.9 < found.low < 0.95


def test_balanced_accuracy_interval_covers() -> None:
    generator = np.random.default_rng(1)
    truth, sizes = (0.99, 0.9), (400, 60)
    covered = 0
    for _ in range(400):
        shares = [wilson(generator.binomial(n, p), n) for n, p in zip(sizes, truth, strict=True)]
        found = mean_of_shares(shares)
        covered += found.low <= np.mean(truth) <= found.high
    assert covered >= 0.93 * 400


def test_resamples_keep_the_size_of_each_stratum() -> None:
    strata = np.array([0] * 7 + [1] * 3)
    for counts in resamples(strata, 250, seed=3):
        assert (counts[:, :7].sum(axis=1) == 7).all()
        assert (counts[:, 7:].sum(axis=1) == 3).all()


def test_bootstrap_covers_a_mean() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for seed in range(150):
        sample = generator.normal(0.6, 0.2, 120)
        found = bootstrap(lambda c, s=sample: c @ s / c.sum(axis=1), np.zeros(120, dtype=np.int64), seed, 300)
        covered += found.low <= 0.6 <= found.high
    assert covered >= 0.9 * 150


def test_same_seed_same_interval() -> None:
    sample = np.random.default_rng(0).random(50)
    strata = np.zeros(50, dtype=np.int64)
    first, second, other = (bootstrap(lambda c: c @ sample / 50, strata, seed) for seed in (4, 4, 5))
    assert first == second != other


def test_undefined_draws_are_left_out() -> None:
    found = around(0.5, np.array([np.nan, 0.4, 0.6, np.inf]), 9)
    assert 0.4 <= found.low <= 0.5 <= found.high <= 0.6
    assert around(float("nan"), np.array([0.1]), 3).n == 0


def test_counted_figures_are_exact() -> None:
    assert exact(0.34).low == exact(0.34).high == 0.34
