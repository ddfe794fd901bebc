"""Signals on the shape of an answer: JSON, a number, code that is closed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_api.policy import Record
from leanmodel_routing import Decider, calibrate
from leanmodel_routing.signals import SIGNALS, Observation

SHAPES = {
    "valid-json": (
        ['{"a": 1}', "[1, 2]", '```json\n{"a": [true, null]}\n```', " {} "],
        [
            "spam",
            "42",
            "{'a': 1}",
            '{"a": 1',
            '{"a": NaN}',
            '{"a": 1} and so on',
            "",
            "[" * 100_000,
            "```\n{}",
        ],
    ),
    "valid-number": (
        ["42", "-3.5", "1,234,567.89", "$ 5", "12%", "3/4", "1e-5", "7.", "+0"],
        ["forty two", "4 2", "1,23", "42 apples", "", "-", "1.2.3", "1" * 100, "x=3"],
    ),
    "closed-code": (
        [
            "f(x)[0]",
            "```python\ndef f():\n    return {1: '('[0]}\n```".replace("'('", '"("'),
            'print("(")',
            "{don't}",
        ],
        ["f(x", "f(x]", ")(", "no code at all", "", "```python\nf()"],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_by_hand(name):
    having, lacking = SHAPES[name]
    for text in having:
        assert SIGNALS[name].values(Observation(answer=text), {"tells": True}) == [1.0], text
    for text in lacking:
        assert SIGNALS[name].values(Observation(answer=text), {"tells": True}) == [0.0], text


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_that_all_or_none_have_tells_nothing(name):
    having, lacking = SHAPES[name]
    signal = SIGNALS[name]
    for texts, tells in (
        ([having[0]] * 40, False),
        ([lacking[0]] * 40, False),
        ([having[0], lacking[0]] * 20, True),
    ):
        params = signal.fit([Observation(answer=text) for text in texts])
        assert params == {"tells": tells}
        assert (
            len(signal.feature_names(params)) == len(signal.values(Observation(answer="x"), params)) == tells
        )


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_answer_breaks_a_shape(text):
    for name in SHAPES:
        assert SIGNALS[name].values(Observation(answer=text), {"tells": True}) in ([0.0], [1.0])


def test_a_broken_answer_goes_large_where_the_task_is_json():
    """Log-probs tell nothing here: what does not parse is wrong, and is found by that alone."""
    rng = np.random.default_rng(0)
    records = []
    for index in range(1500):
        right = bool(rng.random() < 0.8)
        text = json.dumps({"id": index})
        records.append(
            Record(
                prompt=f"as JSON: {index}", lean_quality=float(right), large_quality=1.0,
                lean_answer=text if right else text[:-1], large_answer=text,
                lean_logprobs=(-0.1 * rng.random(), -0.2 * rng.random()),
            )
        )  # fmt: skip
    found = calibrate(records, 0.95)
    assert found.policy.kind == "cascade" and "valid_json" in found.policy.predictor.feature_names
    assert found.evaluation.large_share == pytest.approx(0.2, abs=0.05)
    decider = Decider(found.policy)
    assert decider.accept(decider.confidence([-0.05, -0.1], answer='{"id": 1}'))
    assert not decider.accept(decider.confidence([-0.05, -0.1], answer='{"id": 1'))
