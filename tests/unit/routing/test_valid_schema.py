"""Whether an answer follows its request's JSON schema; what cannot be told in time counts as not."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from leanmodel_api.errors import InputError
from leanmodel_api.policy import Policy, Record
from leanmodel_routing import Decider
from leanmodel_routing.calibration import calibrate
from leanmodel_routing.decide import RequestFacts
from leanmodel_routing.signals import SIGNALS, Observation
from leanmodel_routing.signals.valid_schema import UNTRIED, follows

SIGNAL = SIGNALS["valid-schema"]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/years"}},
    "required": ["name", "age"],
    "additionalProperties": False,
    "$defs": {"years": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("answer", "schema", "right"),
    [
        ('{"name": "Ada", "age": 36}', PERSON, True),
        ('```json\n{"name": "Ada", "age": 36}\n```', PERSON, True),
        ('{"name": "Ada", "age": -1}', PERSON, False),
        ('{"name": "Ada"}', PERSON, False),
        ('{"name": "Ada", "age": 36, "x": 1}', PERSON, False),
        ('{"name": "Ada", "ag', PERSON, False),  # cut off
        ("Ada is 36", PERSON, False),
        ("", PERSON, False),
        ("NaN", {}, False),
        ("42", {"enum": [41, 42]}, True),
        ("[1, 1]", {"uniqueItems": True}, False),
        ('[1, "1"]', {"uniqueItems": True}, True),
        ("1", {"type": "no type"}, False),  # no schema
        ("1", {"multipleOf": 0}, False),
        ("1", {"$ref": "#/$defs/nowhere"}, False),
        ('"abc"', {"type": "string", "maxLength": 2}, False),
        ('{"pattern": 1}', {"properties": {"pattern": {"type": "integer"}}}, True),  # a name, no keyword
    ],
)
def test_by_hand(answer, schema, right):
    assert follows(answer, schema) is right


def test_nothing_is_fetched(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("something was fetched"))
    assert follows("1", {"$ref": "http://127.0.0.1:1/schema.json"}) is False
    assert follows("1", {"$ref": "https://json-schema.org/draft/2020-12/schema"}) is False


LAUGHS = {
    "$defs": {
        **{f"a{level}": {"allOf": [{"$ref": f"#/$defs/a{level + 1}"}] * 10} for level in range(12)},
        "a12": {"type": "integer"},
    },
    "$ref": "#/$defs/a0",
}
HOSTILE = {
    "billion laughs": (LAUGHS, "1"),
    "a schema that is itself": ({"$ref": "#"}, "1"),
    "a pattern without an end": ({"pattern": "^(a+)+$"}, json.dumps("a" * 40 + "!")),
    "many names": ({"patternProperties": {"(a|a)*$": {}}}, json.dumps({"a" * 40 + "!": 1})),
    "many members in many": ({"items": {"enum": list(range(9_000))}}, json.dumps([-1] + [8_999] * 9_000)),
    "unlike each other": ({"uniqueItems": True}, json.dumps([[index] for index in range(20_000)])),
    "evaluated again and again": ({**LAUGHS, "unevaluatedProperties": False}, "{}"),
    "deep": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}},
        "[" * 30_000 + "]" * 30_000,
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_no_schema_keeps_the_router(what):
    schema, answer = HOSTILE[what]
    begun = time.process_time()
    assert follows(answer, schema) is False
    # Twenty thousand looks take some hundredths of a second; each of these would take minutes, or never end.
    assert time.process_time() - begun < 2


schemas = st.recursive(
    st.sampled_from([
        {}, {"type": "integer"}, {"type": "string"}, {"type": "null"}, {"enum": [1, "a", None]}, {"const": [1]},
        {"minimum": 2}, {"maxLength": 1}, {"required": ["a"]}, {"minItems": 1}, {"maxProperties": 1},
    ]),
    lambda inner: st.one_of(
        st.builds(lambda one: {"items": one}, inner), st.builds(lambda one: {"not": one}, inner),
        st.builds(lambda one, two: {"properties": {"a": one, "b": two}}, inner, inner),
        st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner),
        st.builds(lambda one, two: {"if": one, "then": two}, inner, inner),
        st.builds(lambda one: {"additionalProperties": one}, inner),
    ),
    max_leaves=6,
)  # fmt: skip
values = st.recursive(
    st.sampled_from([None, True, 0, 1, 2.5, "", "a", "ab"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(schemas, values)
@settings(deadline=None, max_examples=200)
def test_it_says_what_the_standard_says(schema, value):
    assert follows(json.dumps(value), schema) == Draft202012Validator(schema).is_valid(value)


def test_what_is_not_tried_counts_as_not_followed():
    for keyword in UNTRIED:
        value = "#" if keyword == "$dynamicRef" else "a" if keyword == "pattern" else {}
        assert follows('"a"', {keyword: value}) is False, keyword


def records(n=1500, seed=1):
    """The lean model is wrong where its answer does not follow the schema; its log-probs say nothing of it."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(n):
        right = rng.random() < 0.8
        answer = '{"name": "Ada", "age": 36}' if right else '{"name": "Ada"}'
        found.append(
            Record(
                prompt=f"question {index}", lean_quality=float(right), large_quality=1.0,
                lean_logprobs=(-0.1 - 0.01 * rng.random(),), lean_answer=answer, response_schema=PERSON,
                large_answer="x",
            )
        )  # fmt: skip
    return found


def test_calibration_uses_it_and_the_certificate_is_for_requests_with_a_schema():
    policy = calibrate(records(), 0.97, 0.9).policy
    assert "valid-schema" in {spec.name for spec in policy.predictor.signals}
    assert policy.kind == "cascade" and policy.scope.response_format == "json_schema"
    decider = Decider(policy)
    told = [-0.105], None
    follows_it = decider.confidence(*told, '{"name": "Ada", "age": 36}', prompt="question", schema=PERSON)
    misses_it = decider.confidence(*told, '{"name": "Ada"}', prompt="question", schema=PERSON)
    assert decider.accept(follows_it) and not decider.accept(misses_it)
    assert decider.confidence(*told, '{"name": "Ada", "age": 36}', prompt="question") == 0.0
    with_one, without = (
        RequestFacts("completions", prompt="p", response_schema=asked) for asked in (True, False)
    )
    assert decider.in_scope(with_one) == (True, "")
    assert decider.in_scope(without) == (False, "response_format: unset, certified for json_schema")


def test_without_schemas_all_is_as_before():
    plain = [record.model_copy(update={"response_schema": None}) for record in records()]
    policy = calibrate(plain, 0.9, 0.9).policy
    assert policy.scope.response_format is None
    content = json.loads(policy.model_dump_json())
    del content["scope"]["response_format"]  # as a version before it has written the policy
    assert Policy.model_validate(content).digest == policy.digest
    facts = RequestFacts("completions", prompt="p", response_schema=True)
    assert Decider(policy).in_scope(facts) == (False, "response_format: json_schema, certified for none")
    with pytest.raises(InputError, match=r"records\.response_schema: 1500 of 3000 records have one"):
        calibrate([*plain, *records()], 0.9, 0.9)


def test_all_or_none_tell_nothing():
    same = [Observation(answer="{}", schema={}) for _ in range(50)]
    assert SIGNAL.fit(same) == {"tells": False} and SIGNAL.feature_names({"tells": False}) == ()
    mixed = [*same, *(Observation(answer="no", schema={}) for _ in range(50))]
    assert SIGNAL.fit(mixed) == {"tells": True} and SIGNAL.values(mixed[-1], {"tells": True}) == [0.0]
    assert not SimpleNamespace(has=Observation(answer="{}").has).has("schema")
