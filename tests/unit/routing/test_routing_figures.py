"""Figures against hand-made tables, and intervals against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from leanmodel_api.policy import Record
from leanmodel_routing import figures
from leanmodel_routing.aiq import aiq_draws, table_aiq
from leanmodel_routing.bootstraps import curve_draws, intervals
from leanmodel_routing.intervals import bootstrap_interval, bootstrap_weights, wilson_interval
from leanmodel_routing.table import Table
from leanmodel_routing.tails import clopper_pearson_upper, incomplete_beta, normal_quantile, student_tail
from leanmodel_routing.walk import SKIPPED


def table(lean, large, **options):
    rows = zip(lean, large, strict=True)
    return Table.of(
        [Record(prompt=str(i), lean_quality=a, large_quality=b, **options) for i, (a, b) in enumerate(rows)]
    )


def test_a_perfect_router():
    """Two of four records need the large model; the confidence knows which."""
    curve = figures.curve_of(table([1, 1, 0, 0], [1, 1, 1, 1]), np.array([0.9, 0.8, 0.2, 0.1]))
    assert curve.share.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert curve.quality.tolist() == [1.0, 1.0, 1.0, 0.75, 0.5]
    assert figures.cpt(curve, 0.5) == pytest.approx(0.25)
    assert figures.cpt(curve, 0.8) == pytest.approx(0.4)
    assert figures.apgr(curve) == pytest.approx(0.75)


def test_a_constant_confidence_is_a_coin():
    curve = figures.curve_of(table([1, 0, 0, 0], [1, 1, 1, 1]), np.full(4, 0.5))
    assert curve.share.tolist() == [1.0, 0.0]
    assert figures.apgr(curve) == pytest.approx(0.5)
    assert figures.cpt(curve, 0.8) == pytest.approx(0.8)


def test_ties_move_together():
    curve = figures.curve_of(table([1, 0, 1], [1, 1, 1]), np.array([0.5, 0.5, 0.2]))
    assert curve.share.tolist() == pytest.approx([1.0, 1 / 3, 0.0])


def test_costs_of_a_cascade_include_the_lean_call():
    curve = figures.curve_of(table([1, 0], [1, 1], lean_cost=1.0, large_cost=10.0), np.array([0.9, 0.1]))
    assert curve.cost.tolist() == pytest.approx([10.0, 6.0, 1.0])


@pytest.mark.parametrize(
    ("cost", "quality", "expected"),
    [
        ([0, 1], [0.5, 1.0], 0.75),
        ([0, 0.5, 1], [0.5, 1.0, 1.0], 0.875),
        ([0, 0.5, 1], [0.5, 0.5, 1.0], 0.75),  # below the hull
        ([0, 1], [1.0, 0.5], 1.0),  # dearer and worse is never chosen
        ([1, 1], [0.5, 0.9], None),
    ],
)
def test_aiq(cost, quality, expected):
    found = figures.aiq(np.array(cost, dtype=float), np.array(quality))
    assert found == (None if expected is None else pytest.approx(expected))


def test_plug_in_takes_the_last_threshold_that_looks_good():
    curve = figures.curve_of(table([1, 1, 0, 0], [1, 1, 1, 1]), np.array([0.9, 0.8, 0.2, 0.1]))
    assert figures.plugin_threshold(curve, 0.75) == 0.2


@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.1, 0.3, 0.5, 0.9])),
        min_size=1,
        max_size=40,
    )
)
@settings(max_examples=100, deadline=None)
def test_curves_start_large_end_lean_and_fall_in_share(rows):
    made = table([float(a) for a, _, _ in rows], [float(b) for _, b, _ in rows])
    curve = figures.curve_of(made, np.array([c for _, _, c in rows]))
    assert curve.share[0] == 1.0 and curve.share[-1] == pytest.approx(0.0)
    assert (np.diff(curve.share) < 0).all() and (np.diff(curve.threshold) < 0).all()
    assert curve.quality[0] == pytest.approx(made.large.mean())
    assert curve.quality[-1] == pytest.approx(made.lean.mean())
    if figures.gap_reason(made.lean.mean(), made.large.mean()) is None:
        assert 0.0 <= figures.cpt(curve, 0.5) <= figures.cpt(curve, 0.8) <= 1.0


@given(st.floats(0.1, 300), st.floats(0.1, 300), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_incomplete_beta_is_scipys(a, b, x):
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), abs=1e-10)


@pytest.mark.parametrize(("k", "n"), [(0, 50), (3, 50), (49, 50), (50, 50), (120, 40_000)])
def test_clopper_pearson_is_scipys(k, n):
    expected = 1.0 if k == n else stats.beta.ppf(0.9, k + 1, n - k)
    assert clopper_pearson_upper(k, n, 0.9) == pytest.approx(expected, abs=1e-9)


def test_wilson_is_scipys():
    found, expected = wilson_interval(7, 40), stats.binomtest(7, 40).proportion_ci(method="wilson")
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert wilson_interval(0, 10).low == 0.0 and wilson_interval(10, 10).high == 1.0
    with pytest.raises(ValueError, match="at least 1"):
        wilson_interval(0, 0)


def test_student_and_normal_are_scipys():
    assert student_tail(-1.3, 17.0) == pytest.approx(stats.t.cdf(-1.3, 17.0))
    assert student_tail(2.1, 500.0) == pytest.approx(stats.t.cdf(2.1, 500.0))
    assert normal_quantile(0.975) == pytest.approx(1.959963984540054)


def test_the_bootstrap_covers_a_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for seed in range(200):
        found = bootstrap_interval((rng.random(150) < 0.3).astype(float), seed=seed, draws=300)
        hits += found.low <= 0.3 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("costs", [{}, {"lean_cost": 1.0, "large_cost": 4.0}])
def test_drawn_figures_are_those_of_the_drawn_records(direct, costs):
    """Weighing records by how often they were drawn is the same as a table of the drawn records."""
    rng = np.random.default_rng(5)
    made = table(
        (rng.random(60) < 0.6).astype(float).tolist(), (rng.random(60) < 0.9).astype(float).tolist(), **costs
    )
    confidence = np.round(rng.random(60), 1)  # ties
    if not direct:
        confidence[:8] = SKIPPED
    drawn = bootstrap_weights(made.stratum, seed=2)[:20]
    found = curve_draws(made, confidence, drawn, drawn * made.mass)
    areas = aiq_draws(made, confidence, drawn, direct=direct, points=100)
    for row, times in enumerate(drawn):
        rows = np.repeat(np.arange(60), times.astype(int))
        again, order = made.take(rows), confidence[rows]
        curve = figures.curve_of(again, order, direct=direct)
        assert found["cpt50"][row] == pytest.approx(figures.cpt(curve, 0.5))
        assert found["cpt80"][row] == pytest.approx(figures.cpt(curve, 0.8))
        assert found["apgr"][row] == pytest.approx(figures.apgr(curve))
        assert areas[row] == pytest.approx(table_aiq(again, curve))


def test_every_figure_has_its_interval_and_no_gap_has_none():
    rng = np.random.default_rng(6)
    lean, large = (rng.random(400) < 0.6).astype(float), (rng.random(400) < 0.9).astype(float)
    made, confidence = table(lean.tolist(), large.tolist()), rng.random(400)
    curve = figures.curve_of(made, confidence)
    found = intervals(made, confidence > 0.5, made.lean, None, confidence, 0, direct=False)
    shown = {
        "cpt50": figures.cpt(curve, 0.5), "cpt80": figures.cpt(curve, 0.8), "apgr": figures.apgr(curve),
        "aiq": table_aiq(made, curve), "quality_oracle": float(np.maximum(lean, large).mean()),
        "quality_random": float(large.mean() * (confidence <= 0.5).mean() + lean.mean() * (confidence > 0.5).mean()),
    }  # fmt: skip
    for key, value in shown.items():
        assert found[key].low <= value <= found[key].high, key
    same = table(lean.tolist(), lean.tolist())
    assert not {"cpt50", "cpt80", "apgr"} & set(
        intervals(same, confidence > 0.5, same.lean, None, confidence, 0, direct=False)
    )


def test_bootstrap_weights_keep_the_classes_apart():
    stratum = np.array([0] * 10 + [1] * 30)
    drawn = bootstrap_weights(stratum, seed=1)
    assert drawn.shape == (1000, 40)
    assert (drawn[:, :10].sum(axis=1) == 10).all() and (drawn[:, 10:].sum(axis=1) == 30).all()
