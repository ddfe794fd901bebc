"""Monitors: false alarms over any stopping time, drift seen within the stated number, state that survives JSON."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from leanmodel_api.scores import ScoreReference
from leanmodel_routing.monitors import Counts, LabelFreeMonitor, ScoreDriftMonitor, Tally
from leanmodel_routing.monitors.capital import Capital, kept_back, laid_down
from leanmodel_routing.monitors.label_free import bets, log_growth, requests_needed
from leanmodel_routing.monitors.score_drift import BREAKS, GROWTHS, requests_to_see, worse
from leanmodel_routing.tails import binomial_at_least

LEVEL = 0.1
RUNS = 200
# At a true rate of exactly LEVEL, RUNS runs show more than this in 1% of tries.
MOST_FALSE = LEVEL + 2.33 * math.sqrt(LEVEL * (1 - LEVEL) / RUNS)


def harm_tally(rng, n, loss, rate, accepted=0.7):
    """One period of n requests, of which a share `loss` is accepted and different."""
    tally = Tally()
    tally.requests, tally.accepted = n, round(accepted * n)
    shadowed = rng.binomial(n, accepted * rate)
    for _ in range(shadowed):
        tally.shadow(rng.random() < loss / accepted, rate)
    return tally


def watched(monitor, tallies):
    for tally in tallies:
        monitor = monitor.fold(tally)
        if monitor.alarm:
            break
    return monitor


# ------------------------------------------------------------------------------- capital


def test_what_is_laid_down_and_what_is_kept_is_all_there_is():
    assert sum(laid_down(period) for period in range(1, 500)) + kept_back(499) == pytest.approx(1.0)
    assert all(laid_down(period) > 0 for period in range(1, 500))


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_capital_is_a_fair_game(chances, bets_):
    """Over all outcomes of fair coins (win 1/p, lose 0.. here 1 ± s) the expected capital is what it was."""
    strengths = [0.9 / (index + 1) for index in range(bets_)]
    expected = 0.0
    for outcome in itertools.product([0, 1], repeat=len(chances)):
        capital, chance = Capital.of(bets_), 1.0
        for won, p in zip(outcome, chances, strict=True):
            chance *= p if won else 1 - p
            # A factor with expectation 1: (1 - s) + s/p on a win, 1 - s else.
            capital = capital.after([math.log(1 - s + (s / p if won else 0.0)) for s in strengths])
        expected += chance * math.exp(capital.log_total)
    assert expected == pytest.approx(1.0)


def test_an_alarm_stays():
    capital = Capital.of(1).after([10.0])
    assert capital.reached(0.01) and capital.after([-50.0]).reached(0.01)
    assert Capital.of(1).log_total == pytest.approx(0.0, abs=1e-12)


# ------------------------------------------------------------------------------- label-free


@pytest.mark.parametrize("rates", [(0.02,), (0.01, 0.5)])
def test_false_alarms_of_the_label_free_monitor_stay_below_the_level(rates):
    """At the very edge of the hypothesis, looked at after each of 150 periods; propensities may differ."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(RUNS):
        monitor = LabelFreeMonitor.of(0.03, 0.02, LEVEL)
        tallies = (harm_tally(rng, 200, 0.03, rates[index % len(rates)]) for index in range(150))
        alarms += watched(monitor, tallies).alarm
    assert alarms / RUNS <= MOST_FALSE


@pytest.mark.parametrize(("quiet", "loss"), [(0, 0.06), (40, 0.06), (40, 0.2)])
def test_a_loss_is_seen_within_the_stated_number_of_requests(quiet, loss):
    rng = np.random.default_rng(2)
    monitor = LabelFreeMonitor.of(0.03, 0.05, LEVEL)
    stated = monitor.requests_to_see(loss, chance=0.9, periods=quiet)
    seen = 0
    for _ in range(100):
        found = monitor
        for _ in range(quiet):
            found = found.fold(harm_tally(rng, 500, 0.02, 0.05))
        period = max(stated // 20, 1)
        found = watched(found, (harm_tally(rng, period, loss, 0.05) for _ in range(20)))
        seen += found.alarm
    assert seen >= 90 - 7  # 90% within 2.33 standard errors of 100 runs
    assert stated < 60_000


def test_the_stated_number_is_not_ten_times_too_large():
    """With a twentieth of the requests that are stated, it is seldom seen."""
    rng = np.random.default_rng(3)
    stated = requests_needed(0.03, 0.06, 0.05, LEVEL)
    seen = sum(
        LabelFreeMonitor.of(0.03, 0.05, LEVEL).fold(harm_tally(rng, stated // 20, 0.06, 0.05)).alarm
        for _ in range(100)
    )
    assert seen < 50


def test_more_shadowing_and_a_larger_loss_need_fewer_requests():
    by_rate = [requests_needed(0.02, 0.05, rate, LEVEL) for rate in (0.01, 0.05, 0.2, 1.0)]
    by_loss = [requests_needed(0.02, loss, 0.05, LEVEL) for loss in (0.03, 0.05, 0.1, 1.0)]
    assert by_rate == sorted(by_rate, reverse=True) and by_loss == sorted(by_loss, reverse=True)
    assert requests_needed(0.02, 0.02, 0.05, LEVEL) is None


@given(st.floats(1e-6, 0.999), st.floats(1e-4, 1.0), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_every_bet_is_fair_at_the_bound_and_never_goes_broke(bound, rate, propensity):
    propensity = max(propensity, 1e-3)
    for bet in bets(bound, rate):
        assert 0 < bet * bound < 1
        won = math.exp(log_growth(bet, bound, 1, {1 / propensity: 1}))
        lost = math.exp(log_growth(bet, bound, 1, {}))
        # P(accepted and different) = bound, shadowed with the propensity: the expectation is 1.
        chance = bound * propensity
        assert chance * won + (1 - chance) * lost == pytest.approx(1.0, rel=1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from([0.02, 0.5, 1 / 3])), max_size=30)
)
@settings(max_examples=50, deadline=None)
def test_tallies_merge_in_any_order(events):
    whole, parts = Tally([0.5]), [Tally([0.5]) for _ in range(4)]
    for replica, different, propensity in events:
        for tally in (whole, parts[replica]):
            tally.request(propensity, accepted=True)
            tally.shadow(different, propensity)
    for order in itertools.islice(itertools.permutations(range(4)), 0, 24, 5):
        merged = Tally([0.5])
        for index in order:
            merged.merge(parts[index].counts().model_copy())
        assert merged.counts() == whole.counts()
    assert Counts.model_validate_json(whole.counts().model_dump_json()) == whole.counts()


def test_state_survives_json_and_goes_on_as_it_was():
    rng = np.random.default_rng(4)
    monitor = LabelFreeMonitor.of(0.02, 0.05, LEVEL).fold(harm_tally(rng, 1000, 0.03, 0.05))
    again = LabelFreeMonitor.model_validate_json(monitor.model_dump_json())
    tally = harm_tally(rng, 500, 0.03, 0.05)
    assert again == monitor and again.fold(tally) == monitor.fold(tally.counts())
    assert len(monitor.model_dump_json()) < 1000


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="propensity: found 0"):
        Tally().shadow(True, 0.0)
    with pytest.raises(ValueError, match="different"):
        Tally().shadow(1.5, 0.5)
    with pytest.raises(ValueError, match="bound"):
        LabelFreeMonitor.of(0.0, 0.02, LEVEL)


def test_a_conversation_counts_by_its_share():
    half, whole = Tally(), Tally()
    half.shadow(0.5, 0.5)
    whole.shadow(True, 1.0)
    assert half.counts().harm == whole.counts().harm == {"1.0": 1}


@pytest.mark.parametrize(
    ("k", "n", "p"), [(0, 5, 0.3), (1, 1, 0.3), (3, 10, 0.2), (40, 30_000, 0.001), (6, 5, 0.5)]
)
def test_binomial_tail_is_scipys(k, n, p):
    assert binomial_at_least(k, n, p) == pytest.approx(stats.binom.sf(k - 1, n, p), abs=1e-10)


# ------------------------------------------------------------------------------- score drift


def score_tally(rng, monitor_edges, n, shift=0.0, ties=False):
    tally = Tally(monitor_edges)
    scores = rng.normal(shift, 1.0, n)
    for score in np.round(scores) if ties else scores:
        tally.request(float(1 / (1 + math.exp(-score))), accepted=True)
    return tally


def reference(rng, n, ties=False):
    scores = rng.normal(0.0, 1.0, n)
    return ScoreReference.of((1 / (1 + np.exp(-(np.round(scores) if ties else scores)))).tolist())


@pytest.mark.parametrize(("certified", "ties"), [(20, False), (400, False), (400, True)])
def test_false_alarms_of_the_score_test_stay_below_the_level(certified, ties):
    """Few certified scores are no reason for a false alarm: the ranks are exactly uniform."""
    alarms = 0
    for run in range(RUNS):
        rng = np.random.default_rng(run)
        found = reference(rng, certified, ties)
        monitor = ScoreDriftMonitor.of(found, LEVEL, seed=run)
        alarms += watched(monitor, (score_tally(rng, found.edges, 50, ties=ties) for _ in range(40))).alarm
    assert alarms / RUNS <= MOST_FALSE


@pytest.mark.parametrize("quiet", [0, 1000])
def test_drift_is_seen_within_the_stated_number_of_requests(quiet):
    seen, stated = 0, []
    for run in range(30):
        rng = np.random.default_rng(run)
        found = reference(rng, 800)
        after = [0.0] * len(found.counts)
        for score in rng.normal(-0.7, 1.0, 4000):
            after[int(np.searchsorted(found.edges, 1 / (1 + math.exp(-score)), side="right"))] += 1
        if not stated:
            stated.append(requests_to_see(found, after, LEVEL, quiet=quiet))
        monitor = ScoreDriftMonitor.of(found, LEVEL, seed=run)
        for _ in range(quiet // 50):
            monitor = monitor.fold(score_tally(rng, found.edges, 50))
        seen += watched(
            monitor, (score_tally(rng, found.edges, 50, -0.7) for _ in range(stated[0] // 50))
        ).alarm
    assert stated[0] < 1500
    assert seen >= 22  # 27 of 30 expected; the stated number is itself from 40 runs


def test_too_few_certified_scores_are_said_to_see_nothing():
    few = ScoreReference.of([index / 30 for index in range(30)])
    assert requests_to_see(few, worse(few, 0.1), LEVEL, most=3000) is None


def test_ranks_are_uniform_whatever_the_bins():
    rng = np.random.default_rng(7)
    hits = np.zeros(len(BREAKS) + 1)
    for run in range(300):
        scores = rng.integers(0, 3, 40)  # many ties
        found = ScoreReference.of((scores[:20] / 2).tolist())
        tally = Tally(found.edges)
        for score in scores[20:]:
            tally.request(score / 2, accepted=False)
        monitor = ScoreDriftMonitor.of(found, LEVEL, seed=run)
        grown = np.array(monitor.fold(tally).capital.logs) - math.log(laid_down(1))
        # The hits per region come back from the growth of the bets: as many equations as bets.
        hits += np.linalg.lstsq(np.array(GROWTHS), grown, rcond=None)[0]
    widths = np.diff([0.0, *BREAKS, 1.0])
    assert stats.chisquare(hits, widths * hits.sum()).pvalue > 0.001


def test_worse_moves_a_share_into_the_lowest_scores():
    found = ScoreReference.of([index / 100 for index in range(100)], bins=10)
    weights = worse(found, 0.5)
    assert sum(weights) == pytest.approx(1.0)
    assert weights[0] == pytest.approx(0.55) and weights[9] == pytest.approx(0.05)


def test_a_tally_of_another_policy_is_refused():
    found = ScoreReference.of([0.1, 0.2, 0.3], bins=3)
    tally = Tally([0.1 * index for index in range(1, 9)])
    tally.request(0.95, accepted=True)
    with pytest.raises(ValueError, match="another policy"):
        ScoreDriftMonitor.of(found, LEVEL).fold(tally)


@given(st.lists(st.floats(0, 1), max_size=60), st.lists(st.floats(0, 1), max_size=60), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_any_scores_can_be_watched(certified, seen, bins):
    found = ScoreReference.of(certified, bins)
    assert found.n == len(certified)
    tally = Tally(found.edges)
    for score in seen:
        tally.request(score, accepted=True)
    monitor = ScoreDriftMonitor.of(found, LEVEL).fold(tally)
    assert ScoreDriftMonitor.model_validate_json(monitor.model_dump_json()) == monitor
    assert monitor.message() and math.isfinite(monitor.capital.log_total)
    assert sum(monitor.counts) == len(certified) + (len(seen) if found.edges else 0)


def test_monitors_load_neither_numpy_nor_scikit_learn():
    code = "import sys, leanmodel_routing.monitors; print({'numpy', 'scipy', 'sklearn'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    assert run.stdout.strip() == "set()"


def test_the_order_within_a_period_is_by_lot_and_repeatable():
    rng = random.Random(0)
    found = ScoreReference.of([rng.random() for _ in range(50)])
    tally = Tally(found.edges)
    for _ in range(50):
        tally.request(rng.random(), accepted=True)
    assert ScoreDriftMonitor.of(found, LEVEL).fold(tally) == ScoreDriftMonitor.of(found, LEVEL).fold(
        tally.counts()
    )
