"""The exact test: valid on the edge of the hypothesis, the binomial's own where there is one class, and stronger
than betting where answers are right or wrong.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_making import make_pool
from scipy import stats

from leanmodel_routing import exact
from leanmodel_routing.betting import betting_p_value
from leanmodel_routing.calibration import calibrate_tables
from leanmodel_routing.exact import Harms, p_value
from leanmodel_routing.predictors.candidates import LOGPROB_SIGNALS, Candidate


@given(n=st.integers(1, 3000), data=st.data(), retain=st.sampled_from([0.8, 0.95, 0.98, 0.99]))
@settings(deadline=None)
def test_one_class_is_the_binomial_test(n, data, retain):
    harms = data.draw(st.integers(0, n))
    expected = stats.binom.cdf(harms, n, 1 - retain)
    assert p_value((Harms(n + 5, n, harms),), retain, 0.1) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("retain", "harms", "plain", "balanced"),
    [
        (0.99, 0, 230, 118),
        (0.98, 0, 114, 59),
        (0.98, 1, 194, 98),
        (0.98, 2, 265, 134),
        (0.95, 0, 45, 23),
        (0.95, 2, 105, 53),
    ],
)
def test_this_many_records_certify_at_ten_percent(retain, harms, plain, balanced):
    def one(n):
        return p_value((Harms(n, n, harms),), retain, 0.1)

    def two(n):
        return p_value((Harms(n, n, harms), Harms(7 * n, 7 * n, 0)), retain, 0.1)

    assert one(plain) <= 0.1 < one(plain - 1)
    assert two(balanced) <= 0.1 < two(balanced - 1)


def test_it_lets_more_harm_pass_than_betting_where_the_promise_is_kept():
    losses = np.array([-0.02] * 263 + [0.98] * 2)
    assert p_value((Harms(265, 265, 2),), 0.98, 0.1) <= 0.1 < betting_p_value(losses, 0.98, evidence=losses)


def rejected(one, other, retain, risk, rates):
    """True chance that the test says `kept` at these rates of harm, by going through every outcome."""
    first = stats.binom.pmf(np.arange(one + 1), one, rates[0])
    second = stats.binom.pmf(np.arange(other + 1), other, rates[1])
    total = 0.0
    for a in range(one + 1):
        passes = 0
        while (
            passes <= other
            and p_value((Harms(one, one, a), Harms(other, other, passes)), retain, risk) <= risk
        ):
            passes += 1
        if passes == 0:
            break
        total += first[a] * second[:passes].sum()
    return total


@pytest.mark.parametrize("first", [0.0, 0.03, 0.1, 0.15, 0.2])
def test_two_classes_are_valid_wherever_the_harm_lies(first):
    """Edge of the hypothesis at a promise of 90%: rates that add up to twice 10%; the large model always right."""
    assert rejected(45, 160, 0.9, 0.1, (first, 0.2 - first)) <= 0.1


@pytest.mark.parametrize("right", [(1.0, 1.0), (0.8, 0.98), (0.95, 0.7)])
def test_it_is_valid_though_the_large_model_errs_by_class(right):
    """Rates of harm on the edge for the true shares of right answers: at most 10% (and 3 standard errors) pass."""
    rng = np.random.default_rng(5)
    n, retain, weight = (150, 900), 0.95, right[0] / sum(right)
    for first in (0.0, 0.05, 0.05 / weight):
        rates = (first, (0.05 - weight * first) / (1 - weight))
        passed = 0
        for _ in range(400):
            counts = []
            for size, share, rate in zip(n, right, rates, strict=True):
                good = int(rng.binomial(size, share))
                counts.append(Harms(size, good, int(rng.binomial(good, max(rate, 0.0)))))
            passed += p_value(tuple(counts), retain, 0.1) <= 0.1
        assert passed / 400 <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 400)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 300),
    st.integers(1, 1200),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.9, 0.98]),
    st.data(),
)
def test_p_values_rise_with_each_harm_and_do_not_mind_the_order_of_classes(n, m, good, fine, retain, data):
    one, other = Harms(n, int(n * good), 0), Harms(m, int(m * fine), 0)
    one = replace(one, harms=data.draw(st.integers(0, max(one.right - 1, 0))))
    base = p_value((one, other), retain, 0.1)
    assert 0.0 <= base <= 1.0
    assert p_value((replace(one, harms=min(one.harms + 1, one.right)), other), retain, 0.1) >= base - 1e-9
    assert p_value((other, one), retain, 0.1) == pytest.approx(base, rel=0.05, abs=1e-6)


def test_where_qualities_are_no_zeros_and_ones_it_does_not_apply():
    table = make_pool(50, seed=3).table
    assert exact.applies(table, 0.95)
    assert not exact.applies(table, 1.0)
    assert not exact.applies(replace(table, lean=table.lean * 0.5), 0.95)
    weighted = table.weight.copy()
    weighted[0] = 2.0
    assert not exact.applies(replace(table, weight=weighted), 0.95)


@pytest.mark.parametrize(("gain", "expected"), [(False, "ltt-exact"), (True, "ltt-target-betting")])
def test_the_fit_part_chooses_the_test(gain, expected):
    """A lean model that is often right where the large one is wrong is better served by bets, which count that."""
    rng = np.random.default_rng(4)
    table = make_pool(1500, seed=4, lean_ease=4.0).table
    large = rng.random(1500) < (0.7 if gain else 0.97)
    lean = np.where(
        large, rng.random(1500) < (0.93 if gain else 0.98), rng.random(1500) < (0.9 if gain else 0.0)
    )
    table = replace(table, lean=lean.astype(float), large=large.astype(float))
    rows = np.arange(1500)
    policy = calibrate_tables(
        table.take(rows[:500]),
        table.take(rows[500:1100]),
        table.take(rows[1100:]),
        0.95,
        0.9,
        candidates=(Candidate("min-logprob", LOGPROB_SIGNALS[:1], "fine"),),
    )
    assert policy.certificate.method == expected
    assert policy.certificate.certified
