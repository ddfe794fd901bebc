"""The p-values: valid with known truth, strong enough to be useful, and blind to the order of the records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_making import make_pool

from leanmodel_routing.betting import Losses, balanced_log_wealth, betting_p_value, p_from_log_wealth
from leanmodel_routing.certify import evidence_of, log_wealth
from leanmodel_routing.table import Table
from leanmodel_routing.ttest import t_p_value

loss_lists = st.lists(st.sampled_from([-0.95, -0.05, 0.0, 0.95, 0.3]), min_size=1, max_size=60)


def losses_without_harm(n, retain, harms=0):
    return np.array([retain - 1.0] * (n - harms) + [retain] * harms)


@pytest.mark.parametrize(
    ("retain", "harms", "enough"),
    [(0.99, 0, 255), (0.99, 1, 560), (0.98, 0, 130), (0.95, 0, 52), (0.95, 2, 155)],
)
def test_this_many_records_certify_at_ten_percent(retain, harms, enough):
    losses = losses_without_harm(enough, retain, harms)
    assert betting_p_value(losses, retain, evidence=losses) <= 0.1
    fewer = losses_without_harm(enough // 2, retain, harms)
    assert betting_p_value(fewer, retain, evidence=fewer) > 0.1


def test_no_harm_alone_needs_at_least_what_any_bet_needs():
    # No fraction may exceed 1, so no valid bet gains more than log(1 + 0.01/0.99) a record.
    losses = losses_without_harm(229, 0.99)
    assert betting_p_value(losses, 0.99, evidence=losses) > 0.1


@pytest.mark.parametrize("chance", [0.01, 0.05, 0.3])
def test_the_p_value_is_valid_on_the_edge_of_the_hypothesis(chance):
    """Mean loss exactly 0: at most 10% (here with 3 standard errors) of the p-values may be at most 0.1."""
    rng = np.random.default_rng(7)
    harm = 0.9
    gain = -chance * harm / (1 - chance)
    rejections = 0
    for _ in range(2000):
        losses = np.where(rng.random(400) < chance, harm, gain)
        evidence = np.where(rng.random(400) < chance / 2, harm, gain)  # a lucky fit part may not break it
        rejections += betting_p_value(losses, 0.95, evidence=evidence) <= 0.1
    assert rejections / 2000 <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 2000)


@pytest.mark.parametrize("rare_mean", [0.05, 0.0, -0.05])
def test_the_balanced_p_value_is_valid_however_the_classes_share_the_loss(rare_mean):
    rng = np.random.default_rng(8)
    rejections = 0
    for _ in range(400):
        rare = two_point(rng, rare_mean, 200)
        rest = two_point(rng, -rare_mean, 1200)
        wealth = balanced_log_wealth(Losses.of(rare, 0.95), Losses.of(rest, 0.95), 0.5)
        rejections += p_from_log_wealth(wealth) <= 0.1
    assert rejections / 400 <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 400)


def two_point(rng, mean, n, low=-0.2, high=0.9):
    return np.where(rng.random(n) < (mean - low) / (high - low), high, low)


@pytest.mark.parametrize("classes", [3, 4])
def test_more_than_two_classes_stay_valid_and_unbiased(classes):
    rng = np.random.default_rng(9)
    pool = make_pool(40 * classes * classes, seed=3, spam=0.5).table
    codes = np.repeat(np.arange(classes), [40 * (2 * code + 1) for code in range(classes)])[: len(pool)]
    table = with_strata(pool, codes, classes)
    means = np.linspace(-0.1, 0.1, classes)
    rejections = 0
    for seed in range(200):
        losses = np.array([two_point(rng, means[code], 1)[0] for code in table.stratum])
        wealth = log_wealth(evidence_of(table, losses, 0.9, seed), None)
        rejections += p_from_log_wealth(wealth) <= 0.1
    assert rejections / 200 <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 200)


def with_strata(table: Table, codes, classes):
    from dataclasses import replace

    return replace(table, stratum=codes, strata=tuple(str(code) for code in range(classes)))


def test_blocks_keep_the_balanced_mean_where_the_classes_divide_evenly():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], [30, 60, 120])
    table = with_strata(make_pool(210, seed=3, spam=0.5).table, codes, 3)
    losses = rng.uniform(-1, 0.9, 210)
    found = evidence_of(table, losses, 0.9, 5)
    rare, rest = found.two
    mean = (
        found.share * (rare.values @ rare.counts) / rare.n
        + (1 - found.share) * (rest.values @ rest.counts) / rest.n
    )
    expected = np.mean([losses[codes == code].mean() for code in range(3)])
    assert mean == pytest.approx(expected, abs=1e-9)


def test_balanced_needs_half_of_what_one_rare_class_alone_would():
    """A harm in one of two classes costs half a point of the mean: the rare class needs half the records."""
    rare, rest = losses_without_harm(160, 0.99), losses_without_harm(1100, 0.99)
    evidence = (Losses.of(rare, 0.99), Losses.of(rest, 0.99))
    assert p_from_log_wealth(balanced_log_wealth(*evidence, 0.5, evidence)) <= 0.1
    assert betting_p_value(rare, 0.99, evidence=rare) > 0.1


@given(loss_lists, st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_records_does_not_matter(losses, random):
    shuffled = list(losses)
    random.shuffle(shuffled)
    assert betting_p_value(np.array(losses), 0.95) == pytest.approx(betting_p_value(np.array(shuffled), 0.95))


@given(loss_lists, st.integers(0, 59), st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_larger_loss_never_lowers_the_p_value(losses, place, more):
    worse = np.array(losses)
    place %= len(losses)
    worse[place] += more * (0.95 - worse[place])
    assert betting_p_value(worse, 0.95) >= betting_p_value(np.array(losses), 0.95) - 1e-12


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_putting_losses_on_a_grid_keeps_the_mean_and_only_weakens_the_test(seed):
    losses = np.random.default_rng(seed).uniform(-0.5, 0.45, 3000)
    gridded = Losses.of(losses, 0.95)
    exact = Losses(losses, np.ones(3000), 0.95)
    assert len(gridded.values) < 300
    assert gridded.values @ gridded.counts == pytest.approx(losses.sum(), abs=1e-6)
    assert log_wealth_of(gridded) <= log_wealth_of(exact) + 1e-9


def log_wealth_of(losses):
    from leanmodel_routing.betting import mixture_log_wealth

    return float(mixture_log_wealth(losses, np.zeros(1))[0])


@pytest.mark.parametrize(("losses", "expected"), [([0.95] * 50, 1.0), ([0.0] * 50, 1.0), ([-0.95] * 50, 0.0)])
def test_clear_cases(losses, expected):
    assert betting_p_value(np.array(losses), 0.95) == pytest.approx(expected, abs=1e-6)


def test_a_missing_class_is_no_evidence():
    table = with_strata(make_pool(50, seed=1, spam=0.5).table, np.zeros(50, dtype=int), 2)
    assert log_wealth(evidence_of(table, np.full(50, -0.9), 0.95, 0), None) == 0.0


def test_weights_count_in_the_mean():
    """A third of the records is harmful but weighs next to nothing."""
    from dataclasses import replace

    table = replace(make_pool(900, seed=1).table, weight=np.tile([1.0, 1.0, 0.01], 300))
    losses = np.tile([-0.05, -0.05, 0.5], 300)
    assert p_from_log_wealth(log_wealth(evidence_of(table, losses, 0.95, 0), None)) < 0.1
    assert p_from_log_wealth(log_wealth(evidence_of(table, -losses, 0.95, 0), None)) > 0.5


def test_the_t_test_agrees_with_its_table_and_refuses_few_records():
    rng = np.random.default_rng(1)
    table = make_pool(400, seed=1).table
    losses = rng.normal(-0.01, 0.1, 400)
    t = losses.mean() / (losses.std(ddof=1) / 20)
    from scipy.stats import t as student

    assert t_p_value(table, losses) == pytest.approx(student.cdf(t, 399), rel=1e-9)
    assert t_p_value(table.take(np.arange(299)), losses[:299]) == 1.0
    assert t_p_value(table, np.full(400, -0.01)) == 0.0
    assert t_p_value(table, np.full(400, 0.01)) == 1.0
