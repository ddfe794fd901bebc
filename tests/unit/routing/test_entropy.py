"""The entropy of the next token's distribution: a lower bound from the best k, and how far off it can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.policy import Record
from leanmodel_routing import Decider
from leanmodel_routing.calibration import calibrate
from leanmodel_routing.signals import SIGNALS, Observation
from leanmodel_routing.signals.entropy import entropy_at_least

SIGNAL = SIGNALS["entropy"]


def exact(chances):
    return -sum(chance * math.log(chance) for chance in chances if chance > 0)


@pytest.mark.parametrize(
    ("best", "nats"),
    [
        ([0.0, -100.0], 0.0),  # sure
        ([math.log(0.5), math.log(0.5)], math.log(2)),
        ([math.log(0.25)] * 4, math.log(4)),
        ([math.log(0.25)] * 2, math.log(4)),  # the other half cannot lie on fewer than two words
        ([math.log(0.7), math.log(0.2)], exact([0.7, 0.2, 0.1])),  # the rest may be one word
        ([float("nan"), -100.0], 100.0), ([0.5, -100.0], 0.0),
    ],
)  # fmt: skip
def test_by_hand(best, nats):
    assert entropy_at_least(best) == pytest.approx(nats, abs=1e-6)


@given(st.lists(st.floats(1e-6, 1), min_size=3, max_size=60), st.integers(2, 20))
def test_it_is_a_lower_bound_and_misses_no_more_than_it_says(weights, k):
    chances = sorted((np.array(weights) / sum(weights)).tolist(), reverse=True)
    found = entropy_at_least([math.log(chance) for chance in chances[:k]])
    truth, rest, others = exact(chances), sum(chances[k:]), len(chances) - k
    assert found <= truth + 1e-9
    if others > 0 and rest > 1e-12:
        most = min(chances[k - 1], rest)
        assert truth - found <= rest * max(0.0, math.log(others * most / rest)) + 1e-9
    else:
        assert found == pytest.approx(truth, abs=1e-9)
    # More of the best never lower the bound.
    assert entropy_at_least([math.log(chance) for chance in chances[:2]]) <= found + 1e-9


def test_features_read_as_many_as_the_fit_part_had():
    top = [[-0.1, -3.0, -4.0, -5.0], [-1.0, -1.1, -2.0]]
    seen = [Observation([-0.1, -1.0], top), Observation(answer="without any")]
    params = SIGNAL.fit(seen)
    assert params == {"best": 3} and SIGNAL.fit([]) == {"best": 2}
    each = [entropy_at_least(best[:3]) for best in top]
    assert SIGNAL.values(seen[0], params) == [each[0], pytest.approx(sum(each) / 2), max(each)]
    assert len(SIGNAL.feature_names(params)) == 3
    assert not all(seen[1].has(need) for need in SIGNAL.needs)


@given(st.lists(st.lists(st.floats(allow_nan=True), min_size=2, max_size=6), min_size=1, max_size=5))
def test_whatever_an_engine_writes_the_features_are_finite(top):
    found = SIGNAL.values(Observation([-1.0] * len(top), top), {"best": 4})
    assert all(math.isfinite(value) and value >= 0 for value in found)


def test_calibration_uses_it_and_the_router_asks_for_as_many():
    """Only the third best word tells a right answer from a wrong one: the two best are alike in all of them."""
    rng = np.random.default_rng(3)
    records = []
    for index in range(1500):
        unsure = rng.random() < 0.3
        right = float(rng.random() > (0.9 if unsure else 0.02))
        third = -1.9 if unsure else -8.0 - rng.random()
        top = (-0.9, -1.5, third, -9.0, -9.5)
        records.append(
            Record(
                prompt=f"question {index}", lean_quality=right, large_quality=1.0, lean_logprobs=(-0.9,),
                lean_top_logprobs=(top,), lean_answer="a", large_answer="a",
            )
        )  # fmt: skip
    policy = calibrate(records, 0.95, 0.9).policy
    (spec,) = [spec for spec in policy.predictor.signals if spec.name == "entropy"]
    assert spec.params == {"best": 5} and policy.kind == "cascade" and policy.certificate.certified
    decider = Decider(policy)
    assert decider.top_logprobs == 5
    sure = decider.confidence([-0.9], [[-0.9, -1.5, -8.5, -9.0, -9.5]], "a", "stop", prompt="question")
    doubtful = decider.confidence([-0.9], [[-0.9, -1.5, -1.9, -9.0, -9.5]], "a", "stop", prompt="question")
    assert decider.accept(sure) and not decider.accept(doubtful)
