"""What of a request bears on the certificate, and what is refused before an engine sees it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leanmodel_serving.router.ask import Ask, parse_ask
from leanmodel_serving.router.errors import ApiError


def ask(endpoint: Any = "completions", **body: Any) -> Ask:
    base = {"model": "m", "prompt": "p"} if endpoint == "completions" else {"model": "m", "messages": [{}]}
    return parse_ask(json.dumps({**base, **body}).encode(), endpoint, "m")


def facts(fill: dict[str, float | int] | None = None, **body: Any) -> Any:
    return ask(**body).facts(fill or {}, None, None)


@pytest.mark.parametrize(
    "field",
    [{"stop": ["a"]}, {"logit_bias": {"1": 2}}, {"min_p": 0.1}, {"response_format": {"type": "json_object"}},
     {"presence_penalty": 1}, {"echo": True}, {"guided_choice": ["a"]}, {"never_heard_of": 1}, {"prompt": ["a", "b"]}, {"prompt": [5, 6]}, {"n": 2}],
)  # fmt: skip
def test_whatever_could_change_an_answer_is_named(field: dict[str, Any]) -> None:
    assert facts(**field).other_sampling == tuple(field)


@pytest.mark.parametrize(
    "field",
    [{"stop": None}, {"stop": []}, {"logit_bias": {}}, {"presence_penalty": 0}, {"echo": False}, {"best_of": 1},
     {"user": "u"}, {"seed": 4}, {"logprobs": 3}, {"stream": True}, {"n": 1}],
)  # fmt: skip
def test_what_changes_nothing_is_not(field: dict[str, Any]) -> None:
    assert facts(**field).other_sampling == ()


def test_defaults_are_the_engines_unless_the_certificate_fills_them() -> None:
    assert (facts().temperature, facts().top_p, facts().n, facts().max_tokens) == (1.0, 1.0, 1, None)
    filled = facts({"temperature": 0.0, "max_tokens": 7})
    assert (filled.temperature, filled.max_tokens) == (0.0, 7)
    said = facts({"temperature": 0.0, "max_tokens": 7}, temperature=0.5, max_tokens=3)
    assert (said.temperature, said.max_tokens) == (0.5, 3)


def test_max_completion_tokens_is_a_limit_too() -> None:
    given_one = ask("chat", max_completion_tokens=5)
    assert given_one.facts({"max_tokens": 9}, None, None).max_tokens == 5
    assert given_one.missing({"max_tokens": 9, "n": 1}) == {"n": 1}


@pytest.mark.parametrize("field", [{"max_tokens": []}, {"temperature": {}}, {"top_p": "x"}])
def test_what_is_no_number_is_in_no_scope(field: dict[str, Any]) -> None:
    assert set(field) <= set(facts(**field).other_sampling)


def test_media_and_tools_are_seen() -> None:
    image = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]}
    ]
    text = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    assert ask("chat", messages=image).facts({}, None, None).images
    assert not ask("chat", messages=text).facts({}, None, None).images
    assert ask("chat", tools=[{}]).facts({}, None, None).tools


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(raw: bytes) -> None:
    for endpoint in ("chat", "completions"):
        try:
            found = parse_ask(raw, endpoint, None)  # type: ignore[arg-type]
        except ApiError as error:
            assert error.status == 400
        else:
            assert isinstance(found.body, dict)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from([10**400, -(10**400), 10**308])
    | st.text(max_size=4)
    | st.floats(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("messages", "prompt", "stream", "n", "logprobs", "top_logprobs", "temperature", "max_tokens", "stream_options", "tools")  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_what_is_accepted_can_be_described(body: dict[str, Any]) -> None:
    """Whatever passes the checks never fails later, in the decision."""
    for endpoint in ("chat", "completions"):
        try:
            found = parse_ask(json.dumps(body).encode(), endpoint, None)  # type: ignore[arg-type]
        except ApiError:
            continue
        found.facts({"temperature": 0.0, "max_tokens": 3}, None, None)
        found.text()
        assert found.logprobs is None or found.logprobs == int(found.logprobs)


@pytest.mark.parametrize("name", ["temperature", "top_p", "max_tokens", "n"])
def test_a_number_that_no_float_holds_is_none_and_left_to_the_engine(name: str) -> None:
    found = parse_ask(json.dumps({"prompt": "p", name: 10**400}).encode(), "completions", None)
    assert math.isnan(found.sampling(name, {}) or 0)
    assert name in found.facts({}, None, None).other_sampling
