"""The plan of a walk: where it starts, by the bets that the fit part shows to grow most."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_api.policy import Record
from leanmodel_routing.betting import FRACTIONS
from leanmodel_routing.table import Table
from leanmodel_routing.walk import losses_at, plan_walk


def brute_start(fit, crossed, thresholds, retain):
    """Threshold by threshold, fraction by fraction, with nothing shared between them."""
    weight = fit.mass * len(fit)

    def growth(threshold):
        losses = losses_at(fit, crossed, threshold, retain)
        grown = [np.log1p(-np.minimum(fraction * losses / retain, 0.999999)) for fraction in FRACTIONS[:-1]]
        harmed = [weight @ one + 0.5 * np.log1p(-f) for one, f in zip(grown, FRACTIONS, strict=False)]
        return grown[int(np.argmax(harmed))]

    first, best, start = growth(thresholds[0]), 0.0, 0
    for index in range(1, len(thresholds)):
        ahead = weight * (growth(thresholds[index]) - first)
        lead = ahead.mean() - 1.64 * ahead.std() / np.sqrt(len(fit))
        if lead > best + 1e-9:
            best, start = lead, index
    return start


items = st.lists(
    st.tuples(st.sampled_from([0.0, 0.4, 1.0]), st.sampled_from([0.0, 0.7, 1.0]), st.integers(0, 6)),
    min_size=1,
    max_size=60,
)


@given(items, st.sampled_from([0.9, 0.97, 1.0]))
@settings(max_examples=150, deadline=None)
def test_the_start_is_the_one_that_trying_everything_finds(rows, retain):
    fit = Table.of([Record(prompt="x", lean_quality=lean, large_quality=large) for lean, large, _ in rows])
    scores = np.array([score / 6 for _, _, score in rows])
    walk = plan_walk(fit, scores, scores, retain)
    assert walk.start == brute_start(fit, scores, walk.thresholds, retain)


@pytest.mark.parametrize(("lean", "large", "later"), [(1.0, 0.0, True), (0.0, 1.0, False), (1.0, 1.0, False)])
def test_a_better_lean_model_makes_it_start_later(lean, large, later):
    fit = Table.of([Record(prompt="x", lean_quality=lean, large_quality=large) for _ in range(200)])
    scores = np.linspace(0.01, 0.99, 200)
    assert (plan_walk(fit, scores, scores, 0.95).start > 0) is later
