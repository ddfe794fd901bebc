"""What a classifier's engine takes and gives, and how it groups texts; nothing of Ray or ONNX Runtime."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.batching import groups
from leanmodel_serving.engines.classify import (
    BadRequestError,
    answer,
    fitted,
    padded,
    parse,
    softmax,
)
from leanmodel_serving.router.ask import parse_ask
from leanmodel_serving.router.logprobs import Reading


def asked(**body: Any) -> Any:
    return parse(json.dumps(body).encode(), "lean-1")


def test_a_text_and_a_list_of_texts() -> None:
    assert asked(input="a").texts == ("a",)
    question = asked(model="lean-1", input=["a", "b"], truncate_prompt_tokens=-1, use_activation=False)
    assert (question.texts, question.truncate, question.probabilities) == (("a", "b"), -1, False)


@pytest.mark.parametrize(
    ("body", "param", "status"),
    [
        ({"input": 3}, "input", 400),
        ({"input": [[1, 2]]}, "input", 400),
        ({"input": ["a"] * 1025}, "input", 400),
        ({"messages": []}, "messages", 400),
        ({"input": "a", "model": "other"}, "model", 404),
        ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", 400),
        ({"input": "a", "truncate_prompt_tokens": True}, "truncate_prompt_tokens", 400),
        ({"input": "a", "use_activation": 1}, "use_activation", 400),
    ],
)
def test_what_cannot_be_answered_names_the_field(body: dict[str, Any], param: str, status: int) -> None:
    with pytest.raises(BadRequestError) as caught:
        asked(**body)
    assert (caught.value.param, caught.value.status) == (param, status)
    assert str(caught.value).startswith(param)


@given(
    st.lists(st.integers(0, 99), min_size=2, max_size=40),
    st.integers(2, 30),
    st.integers(2, 30) | st.just(-1),
)
def test_a_cut_text_keeps_its_beginning_and_its_end(ids: list[int], limit: int, truncate: int) -> None:
    found = fitted(ids, limit, truncate)
    most = limit if truncate == -1 else min(limit, truncate)
    assert len(found) == min(len(ids), most)
    assert found[-1] == ids[-1] and list(found[:-1]) == ids[: len(found) - 1]


def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut() -> None:
    with pytest.raises(BadRequestError, match="truncate_prompt_tokens: -1"):
        fitted([1] * 9, 8, None)


@given(st.lists(st.integers(1, 600), max_size=80), st.integers(1, 4000))
def test_groups_hold_every_text_once_and_few_tokens(lengths: list[int], most: int) -> None:
    found = groups(lengths, most)
    assert sorted(index for group in found for index in group) == list(range(len(lengths)))
    for group in found:
        assert len(group) == 1 or len(group) * max(lengths[index] for index in group) <= most


def test_padding_is_masked() -> None:
    ids, mask = padded([[5, 6, 7], [8]], pad=9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]


@given(st.lists(st.floats(-80, 80, width=32), min_size=2, max_size=6))
def test_probabilities_add_up_and_the_router_reads_the_best_two(logits: list[float]) -> None:
    row = np.array(logits, dtype=np.float32)
    labels = [f"l{index}" for index in range(len(logits))]
    body = answer("lean-1", labels, [row], 4, probabilities=True)
    probs = body["data"][0]["probs"]
    assert sum(probs) == pytest.approx(1) and probs == pytest.approx(softmax(row).tolist())
    reading = Reading("classify")
    reading.take(body)
    best = sorted(probs, reverse=True)
    assert reading.complete and reading.answer == body["data"][0]["label"] == labels[int(row.argmax())]
    assert reading.tokens == pytest.approx([math.log(best[0])], abs=1e-9)
    assert reading.top[0] == pytest.approx([math.log(max(value, 1e-12)) for value in best[:2]], abs=1e-9)
    assert max(reading.tokens) <= 0


def test_several_labels_are_judged_as_nothing() -> None:
    reading = Reading("classify")
    reading.take(answer("m", ["a", "b"], [np.zeros(2, np.float32)] * 2, 4, probabilities=True))
    assert not reading.complete


def test_a_question_bears_nothing_but_its_text_on_the_certificate() -> None:
    ask = parse_ask(b'{"model": "m", "input": "free cash", "user": "u"}', "classify", "m")
    facts = ask.facts({}, "lean", "large")
    assert (facts.endpoint, facts.prompt, facts.other_sampling) == ("classify", "free cash", ())
    assert (facts.temperature, facts.top_p, facts.max_tokens, facts.n) == (None, None, None, None)
    for body, name in (
        ({"input": ["a", "b"]}, "input"),
        ({"input": "a", "use_activation": False}, "use_activation"),
    ):
        other = parse_ask(json.dumps({"model": "m", **body}).encode(), "classify", "m").facts({}, None, None)
        assert other.other_sampling == (name,)
