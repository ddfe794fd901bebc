"""Decisions on the first tokens of an answer: the same cut in calibration, evaluation and router, certified as such."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from leanmodel_api.policy import Record, Scope
from leanmodel_routing.decide import Decider
from leanmodel_routing.evaluate import evaluate_policy
from leanmodel_routing.observation import Observation
from leanmodel_routing.routing_calibration import calibrate_routing

HELD = 4
logprobs = st.lists(st.floats(-20, 0), max_size=12)


def records(count: int, seed: int) -> list[Record]:
    """Answers of 1 to 12 tokens; how sure the first ones are tells whether the lean model is right."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        length, sure = int(rng.integers(1, 13)), rng.uniform(0.5, 1.0)
        head = np.clip(rng.normal(sure, 0.1, min(length, HELD)), 0.01, 0.999)
        tail = rng.uniform(0.01, 0.999, length - len(head))  # tells nothing
        found.append(
            Record(
                prompt=f"question {index}", lean_quality=float(rng.random() < sure),
                large_quality=float(rng.random() < 0.97), lean_cost=0.001, large_cost=0.01,
                lean_logprobs=tuple(np.log(np.concatenate([head, tail])).tolist()),
                lean_answer="word " * length, lean_finish_reason="length" if length == 12 else "stop",
            )
        )  # fmt: skip
    return found


@given(logprobs, st.integers(1, 12))
@settings(deadline=None)
def test_a_prefix_says_nothing_of_what_comes_after(tokens: list[float], count: int) -> None:
    whole = Observation(tokens, [[value, value - 1] for value in tokens], "the answer", "stop", "a prompt")
    cut = whole.first(count)
    if len(tokens) <= count:
        assert cut is whole
        return
    assert cut.tokens == [max(value, -100.0) for value in tokens[:count]] and len(cut.top or ()) == count
    assert (cut.answer, cut.finish_reason, cut.prompt) == (None, None, "a prompt")
    longer = Observation(
        [*tokens, -3.0], [[value, value - 1] for value in [*tokens, -3.0]], None, None, "a prompt"
    )
    assert (longer.first(count).tokens, longer.first(count).top) == (cut.tokens, cut.top)


def test_a_policy_on_a_prefix_decides_the_same_everywhere() -> None:
    scope = Scope(decision=Scope.reading(HELD))
    result = calibrate_routing(records(3000, 1), 0.9, 0.9, scope=scope, strategies=("cascade",))
    policy = result.policy
    assert (
        policy.kind == "cascade"
        and policy.scope.hold_back == HELD
        and "first-4-tokens" in policy.model_dump_json()
    )
    decider, fresh = Decider(policy), records(600, 2)
    accepted = []
    for record in fresh:
        tokens = list(record.lean_logprobs or ())
        full = decider.confidence(
            tokens, None, record.lean_answer, record.lean_finish_reason, prompt=record.prompt_text
        )
        # The router knows one token more than it reads, and neither the text nor the end of a longer answer.
        early = decider.confidence(tokens[: HELD + 1], None, "wor", None, prompt=record.prompt_text)
        if len(tokens) > HELD:
            assert early == full
        accepted.append(decider.accept(full))
    found = evaluate_policy(policy, fresh)
    assert found.large_share == pytest.approx(1 - np.mean(accepted))
    kept = [r.lean_quality if yes else r.large_quality for r, yes in zip(fresh, accepted, strict=True)]
    assert found.quality == pytest.approx(np.mean(kept))


def test_what_is_read_is_named_or_refused() -> None:
    assert Scope().hold_back is None and Scope(decision="first-32-tokens").hold_back == 32
    for wrong in ("first-0-tokens", "first-tokens", "prefix", "first-1e9-tokens", "whole"):
        with pytest.raises(ValidationError):
            Scope(decision=wrong)
