"""The small logistic regression: the optimum that scikit-learn's estimator finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from leanmodel_routing.predictors.logistic import newton_logistic


def scikit(rows, target, weight, ridge):
    """Its optimum, to the last digits; a share of a yes is two rows."""
    both = np.concatenate([rows, rows])
    label = np.concatenate([np.ones(len(rows)), np.zeros(len(rows))])
    share = np.concatenate([weight * target, weight * (1 - target)])
    kept = share > 0
    model = LogisticRegression(C=1 / ridge, solver="newton-cholesky", max_iter=1000, tol=1e-12)
    model.fit(both[kept], label[kept], sample_weight=share[kept])
    return model.coef_[0], float(model.intercept_[0])


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("ridge", [1.0, 1e-3])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_scikit_learns(shares, ridge, weighted):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    chance = expit(rows @ rng.normal(size=6) + 1)
    target = chance if shares else (rng.random(500) < chance).astype(float)
    weight = rng.exponential(size=500) if weighted else np.ones(500)
    slopes, intercept = newton_logistic(rows, target, weight, ridge)
    wanted, at = scikit(rows, target, weight, ridge)
    assert slopes == pytest.approx(wanted, rel=1e-5, abs=1e-6) and intercept == pytest.approx(
        at, rel=1e-5, abs=1e-6
    )


@given(
    st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 1)), min_size=2, max_size=40),
    st.sampled_from([1.0, 1e-3]),
)
@settings(max_examples=200, deadline=None)
def test_it_is_the_optimum_or_says_that_it_is_not(items, ridge):
    """Separable, constant and doubled columns among them."""
    table = np.array(items)
    rows = np.column_stack([table[:, 0], table[:, 1], table[:, 0], np.zeros(len(items))])
    target, weight = table[:, 2], np.ones(len(items))
    found = newton_logistic(rows, target, weight, ridge)
    if found is None:
        return
    slopes, intercept = found
    error = expit(rows @ slopes + intercept) - target
    assert np.abs(rows.T @ error + ridge * slopes).max() <= 1e-8 * len(items)
    assert abs(error.sum()) <= 1e-8 * len(items)


def test_what_can_be_separated_has_an_optimum_too():
    rows = np.array([[-1.0], [-0.5], [0.5], [1.0]])
    slopes, intercept = newton_logistic(rows, np.array([0.0, 0.0, 1.0, 1.0]), np.ones(4), 1.0)
    assert slopes == pytest.approx(scikit(rows, np.array([0.0, 0, 1, 1]), np.ones(4), 1.0)[0], rel=1e-5)
    assert intercept == pytest.approx(0.0, abs=1e-8)
