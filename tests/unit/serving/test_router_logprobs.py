"""Log-probs that only the decision needs leave no trace; those that were asked for stay."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from leanmodel_serving.router.ask import Ask
from leanmodel_serving.router.logprobs import Reading, narrow, widen


def chat(**body: Any) -> Ask:
    return Ask("chat", {"messages": [{"role": "user", "content": "a"}], **body}, False, False)


def raw(**body: Any) -> Ask:
    return Ask("completions", {"prompt": "a", **body}, False, False)


CHAT_ANSWER = {
    "choices": [
        {
            "index": 0, "finish_reason": "stop", "message": {"content": "ab"},
            "logprobs": {"content": [
                {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "a", "logprob": -0.1}, {"token": "x", "logprob": -3.0}]},
                {"token": "b", "logprob": -2.0, "top_logprobs": [{"token": "b", "logprob": -2.0}, {"token": "y", "logprob": -0.5}]},
            ]},
        }
    ]
}  # fmt: skip
RAW_ANSWER = {
    "choices": [
        {
            "index": 0, "finish_reason": "length", "text": "ab",
            "logprobs": {
                "tokens": ["a", "b"], "token_logprobs": [-0.1, -2.0], "text_offset": [0, 1],
                "top_logprobs": [{"a": -0.1, "x": -3.0}, {"b": -2.0, "y": -0.5, "z": -1.0}],
            },
        }
    ]
}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "best", "sent"),
    [
        (chat(), 2, (True, 2)),
        (chat(), 0, (True, 0)),
        (chat(logprobs=True), 2, (True, 2)),
        (chat(logprobs=True, top_logprobs=5), 2, (True, 5)),
        (chat(logprobs=False), 2, (True, 2)),
    ],
)
def test_chat_asks_for_the_most_of_both(asked: Ask, best: int, sent: tuple[bool, int]) -> None:
    body: dict[str, Any] = {}
    widen(asked, body, best)
    assert (body["logprobs"], body["top_logprobs"]) == sent


@pytest.mark.parametrize(
    ("asked", "best", "sent"), [(raw(), 2, 2), (raw(logprobs=0), 2, 2), (raw(logprobs=5), 2, 5)]
)
def test_completions_ask_for_the_most_of_both(asked: Ask, best: int, sent: int) -> None:
    body: dict[str, Any] = {}
    widen(asked, body, best)
    assert body == {"logprobs": sent}


@pytest.mark.parametrize(("asked", "answer"), [(chat(), CHAT_ANSWER), (raw(), RAW_ANSWER)])
def test_unasked_logprobs_are_taken_out(asked: Ask, answer: dict[str, Any]) -> None:
    found = copy.deepcopy(answer)
    narrow(asked, found)
    assert found["choices"][0]["logprobs"] is None


def test_asked_ones_are_cut_to_the_number() -> None:
    one = copy.deepcopy(CHAT_ANSWER)
    narrow(chat(logprobs=True, top_logprobs=1), one)
    assert [len(token["top_logprobs"]) for token in one["choices"][0]["logprobs"]["content"]] == [1, 1]
    none = copy.deepcopy(CHAT_ANSWER)
    narrow(chat(logprobs=True), none)
    assert [token["top_logprobs"] for token in none["choices"][0]["logprobs"]["content"]] == [[], []]
    best = copy.deepcopy(RAW_ANSWER)
    narrow(raw(logprobs=1), best)
    # The chosen token is listed beside the best ones, as the engine does.
    assert best["choices"][0]["logprobs"]["top_logprobs"] == [{"a": -0.1}, {"y": -0.5, "b": -2.0}]


@pytest.mark.parametrize(("endpoint", "answer"), [("chat", CHAT_ANSWER), ("completions", RAW_ANSWER)])
def test_a_reading_has_what_the_decision_needs(endpoint: Any, answer: dict[str, Any]) -> None:
    reading = Reading(endpoint)
    reading.take(answer)
    assert reading.answer == "ab" and reading.tokens == [-0.1, -2.0] and reading.complete
    assert [best[:2] for best in reading.top] == [
        [-0.1, -3.0],
        [-0.5, -1.0 if endpoint == "completions" else -2.0],
    ]
    assert reading.finish_reason == ("stop" if endpoint == "chat" else "length")


def test_chunks_make_the_same_reading_as_the_whole() -> None:
    content = CHAT_ANSWER["choices"][0]["logprobs"]["content"]  # type: ignore[index]
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": content[:1]}}]},
        {"choices": [{"index": 0, "delta": {"content": "b"}, "logprobs": {"content": content[1:]}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1}},
    ]  # fmt: skip
    streamed, whole = Reading("chat"), Reading("chat")
    for chunk in chunks:
        streamed.take(chunk)
    whole.take(CHAT_ANSWER)
    assert vars(streamed) == {**vars(whole), "text": ["", "a", "b"]}
    assert streamed.answer == whole.answer


def test_a_token_without_logprob_makes_it_incomplete() -> None:
    reading = Reading("completions")
    reading.take({"choices": [{"text": "ab", "logprobs": {"token_logprobs": [None, -1.0]}}]})
    assert not reading.complete
