"""Lean first: both ways really taken, by the policy, whole and in streams, and nothing of the trial shows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from serving_support import LARGE, LEAN, NAME, Stack, confidence, events, free_port, policy

from leanmodel_api.policy import PromptScope, Scope

PROMPTS = [
    "The capital of France is", "1 2 3 4 5", "a a a a a", "Q: What is 2+2? A:", "import os\nimport", "zxqv",
    "Roses are red, violets are", "the the the", "Dear Sir or", "!!!!!!",
]  # fmt: skip
SCOPE = Scope(endpoint="completions", temperature=0.0, max_tokens=3, n=1)


@dataclass(frozen=True)
class Known:
    """A prompt with what both models make of it when asked alone."""

    prompt: str
    lean: str
    large: str
    confidence: float


def _alone(stack: Stack, revision: str, prompt: str) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": 3, "temperature": 0, "logprobs": 2}
    choice: dict[str, Any] = stack.internal(revision, "/v1/completions", body).json()["choices"][0]
    return choice


@pytest.fixture(scope="module")
def known(stack: Stack, joined: object) -> list[Known]:
    stack.configure(lean=stack.backend(LEAN))
    found = []
    for prompt in PROMPTS:
        lean, large = (_alone(stack, revision, prompt) for revision in (LEAN, LARGE))
        sure = confidence(lean["logprobs"]["token_logprobs"])
        found.append(Known(prompt, lean["text"], large["text"], sure))
    return sorted(found, key=lambda item: item.confidence)


@pytest.fixture(scope="module")
def threshold(known: list[Known]) -> float:
    """In the widest gap between two confidences, but for the ends: both ways are taken, and noise decides none."""
    inner = list(itertools.pairwise(known))[1:-1]
    low, high = max(inner, key=lambda two: two[1].confidence - two[0].confidence)
    assert high.confidence - low.confidence > 1e-3
    return (low.confidence + high.confidence) / 2


@pytest.fixture
def cascade(pair: Stack, threshold: float) -> Iterator[Stack]:
    pair.configure(lean=pair.backend(LEAN), strategy="Cascade", policy=policy(threshold, SCOPE))
    yield pair


def _way(item: Known, threshold: float) -> tuple[str, str, str]:
    return ("lean", LEAN, item.lean) if item.confidence >= threshold else ("escalated", LARGE, item.large)


def test_whole_answers_go_by_the_threshold(cascade: Stack, known: list[Known], threshold: float) -> None:
    routes = set()
    for item in known:
        reply = cascade.post("/v1/completions", {"prompt": item.prompt, "max_tokens": 3})
        route, revision, text = _way(item, threshold)
        routes.add(route)
        choice = reply.json()["choices"][0]
        assert (reply.headers["x-leanmodel-route"], reply.json()["model"], choice["text"]) == (
            route,
            revision,
            text,
        )
        assert float(reply.headers["x-leanmodel-confidence"]) == pytest.approx(item.confidence, abs=1e-4)
        assert choice["logprobs"] is None
        assert reply.headers["x-leanmodel-revision"] == revision
        assert reply.headers["x-leanmodel-policy"]
        assert "x-leanmodel-scope" not in reply.headers
    assert routes == {"lean", "escalated"}


def test_an_escalation_costs_both(cascade: Stack, known: list[Known], threshold: float) -> None:
    for item in (known[0], known[-1]):
        reply = cascade.post("/v1/completions", {"prompt": item.prompt, "max_tokens": 3})
        tokens = reply.json()["usage"]["total_tokens"]
        lean_tokens = cascade.internal(
            LEAN, "/v1/completions", {"prompt": item.prompt, "max_tokens": 3, "temperature": 0}
        ).json()["usage"]["total_tokens"]  # fmt: skip
        # 0.2 micro-dollars a lean token, 1 a large one.
        expected = Decimal(lean_tokens) * 2 / 10**7
        if _way(item, threshold)[0] == "escalated":
            expected += Decimal(tokens) / 10**6
        assert Decimal(reply.headers["x-leanmodel-cost-usd"]) == expected


def test_streams_go_by_the_threshold_and_show_one_model(
    cascade: Stack, known: list[Known], threshold: float
) -> None:
    routes = set()
    for item in known:
        body = {
            "prompt": item.prompt,
            "max_tokens": 3,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        reply = cascade.post("/v1/completions", body)
        route, revision, text = _way(item, threshold)
        routes.add(route)
        *chunks, last = events(reply.text)
        assert reply.headers["x-leanmodel-route"] == route
        assert {chunk["model"] for chunk in (*chunks, last)} == {revision}
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text
        assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)
        assert last["usage"]["route"] == route and Decimal(last["usage"]["cost_usd"]) > 0
        assert float(reply.headers["x-leanmodel-confidence"]) == pytest.approx(item.confidence, abs=1e-4)
    assert routes == {"lean", "escalated"}


def test_streams_are_decided_on_their_first_token_where_the_policy_says_so(pair: Stack) -> None:
    sure = {}
    for prompt in PROMPTS:
        sure[prompt] = confidence(_alone(pair, LEAN, prompt)["logprobs"]["token_logprobs"][:1])
    low, high = max(itertools.pairwise(sorted(sure.values())[1:-1]), key=lambda two: two[1] - two[0])
    scope = SCOPE.model_copy(update={"decision": "first-1-tokens"})
    pair.configure(lean=pair.backend(LEAN), strategy="Cascade", policy=policy((low + high) / 2, scope))
    routes = set()
    for prompt, found in sure.items():
        wanted = {"stream": True, "stream_options": {"include_usage": True}}
        reply = pair.post("/v1/completions", {"prompt": prompt, "max_tokens": 3, **wanted})
        *chunks, last = events(reply.text)
        route = "lean" if found >= high else "escalated"
        routes.add(route)
        assert reply.headers["x-leanmodel-route"] == route
        assert float(reply.headers["x-leanmodel-confidence"]) == pytest.approx(found, abs=1e-4)
        assert all(not chunk.get("usage") and chunk["choices"][0]["logprobs"] is None for chunk in chunks)
        assert last["usage"]["completion_tokens"] == 3 and last["usage"]["route"] == route
    assert routes == {"lean", "escalated"}


def test_a_lean_stream_without_usage_asked_has_none(cascade: Stack, known: list[Known]) -> None:
    reply = cascade.post("/v1/completions", {"prompt": known[-1].prompt, "max_tokens": 3, "stream": True})
    assert reply.headers["x-leanmodel-route"] == "lean"
    assert all(chunk["choices"] and not chunk.get("usage") for chunk in events(reply.text))


@pytest.mark.parametrize("wanted", [0, 1, 4])
def test_logprobs_come_as_many_as_asked(cascade: Stack, known: list[Known], wanted: int) -> None:
    body = {"prompt": known[-1].prompt, "max_tokens": 3, "logprobs": wanted}
    routed = cascade.post("/v1/completions", body)
    assert routed.headers["x-leanmodel-route"] == "lean"
    alone = cascade.internal(LEAN, "/v1/completions", {**body, "temperature": 0}).json()
    ours, theirs = routed.json()["choices"][0]["logprobs"], alone["choices"][0]["logprobs"]
    assert ours["tokens"] == theirs["tokens"]
    assert [set(best) for best in ours["top_logprobs"]] == [set(best) for best in theirs["top_logprobs"]]


def test_chat_goes_the_same_ways(pair: Stack) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    for threshold, route in ((1e-9, "lean"), (1.0, "escalated")):
        pair.configure(lean=pair.backend(LEAN), strategy="Cascade", policy=policy(threshold))
        for stream in (False, True):
            reply = pair.post(
                "/v1/chat/completions", {"messages": messages, "max_tokens": 3, "stream": stream}
            )
            assert reply.headers["x-leanmodel-route"] == route
            bodies = events(reply.text) if stream else [reply.json()]
            for body in bodies:
                assert body["model"] == (LEAN if route == "lean" else LARGE)
                assert body["choices"][0]["logprobs"] is None


def test_what_is_out_of_scope_goes_large_and_says_why(pair: Stack, known: list[Known]) -> None:
    scope = SCOPE.model_copy(
        update={"prompt": PromptScope(roles=(), prefixes=("SMS: ",), suffixes=("Label:",))}
    )
    pair.configure(lean=pair.backend(LEAN), strategy="Cascade", policy=policy(1e-9, scope))
    inside = {"prompt": "SMS: win a prize\nLabel:", "max_tokens": 3}
    assert pair.post("/v1/completions", inside).headers["x-leanmodel-route"] == "lean"
    for change, why in (
        ({"prompt": "something else"}, "prompt"),
        ({"temperature": 0.7}, "temperature"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"n": 2, "best_of": 2, "temperature": 0.0, "seed": 1}, "n"),
        ({"stop": ["x"]}, "stop"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
    ):
        reply = pair.post("/v1/completions", {**inside, **change})
        if reply.status_code == 200:
            assert reply.headers["x-leanmodel-route"] == "large", change
        assert reply.headers["x-leanmodel-scope"].startswith(why), change


def test_open_sampling_is_filled_from_the_certificate(pair: Stack, known: list[Known]) -> None:
    pair.configure(lean=pair.backend(LEAN), strategy="Cascade", policy=policy(1e-9, SCOPE))
    reply = pair.client.post("/v1/completions", json={"model": NAME, "prompt": known[-1].prompt})
    assert reply.headers["x-leanmodel-route"] == "lean"
    assert reply.headers["x-leanmodel-sampling"] == "temperature=0,max_tokens=3,n=1"
    assert reply.json()["choices"][0]["text"] == known[-1].lean


def test_a_lean_model_that_takes_all(pair: Stack, known: list[Known]) -> None:
    pair.configure(lean=pair.backend(LEAN), strategy="Cascade", policy=policy(0.0, SCOPE, kind="all-lean"))
    for stream in (False, True):
        reply = pair.post("/v1/completions", {"prompt": known[0].prompt, "max_tokens": 3, "stream": stream})
        assert reply.headers["x-leanmodel-route"] == "lean"
    assert (
        pair.post("/v1/completions", {"prompt": "a", "max_tokens": 9}).headers["x-leanmodel-route"] == "large"
    )


def test_a_lean_engine_that_is_gone_is_stood_in_for(pair: Stack, known: list[Known]) -> None:
    gone = pair.backend(LEAN, url=f"http://127.0.0.1:{free_port()}/engines/{LEAN}")
    pair.configure(lean=gone, strategy="Cascade", policy=policy(1e-9, SCOPE))
    for index, stream in enumerate((False, True, False, True, False)):
        reply = pair.post("/v1/completions", {"prompt": known[0].prompt, "max_tokens": 3, "stream": stream})
        assert reply.status_code == 200
        # After three failures in a row the lean engine is left alone for a while.
        assert reply.headers["x-leanmodel-route"] == ("escalated" if index < 3 else "large")
        text = reply.text if stream else json.dumps(reply.json())
        assert LARGE in text and LEAN not in text
