"""The way to a named revision, for proving: by token only, dark ones included, bounded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from serving_support import LARGE, LEAN, Stack, sample

from leanmodel_api.router import RouterLimits

BODY = {"prompt": "Hello", "max_tokens": 2, "temperature": 0, "logprobs": 2}


def test_the_token_is_needed(pair: Stack) -> None:
    path = f"/internal/revisions/{LARGE}/v1/completions"
    engine_token = (pair.run_dir / "engine-token").read_text()
    for headers in ({}, {"authorization": "Bearer x"}, {"authorization": f"Bearer {engine_token}"}):
        reply = pair.client.post(path, json=BODY, headers=headers)
        assert reply.status_code == 401
        assert reply.json()["error"]["code"] == "invalid_api_key"


def test_a_dark_revision_answers_there_and_nowhere_else(pair: Stack) -> None:
    pair.configure(dark=[pair.backend(LEAN)])
    reply = pair.internal(LEAN, "/v1/completions", {**BODY, "model": "whatever"})
    assert reply.json()["model"] == LEAN
    assert reply.headers["x-leanmodel-revision"] == LEAN
    assert len(reply.json()["choices"][0]["logprobs"]["token_logprobs"]) == 2
    assert pair.post("/v1/completions", BODY).json()["model"] == LARGE
    assert pair.internal(LEAN, "/v1/completions", {**BODY, "stream": True}).text.endswith("data: [DONE]\n\n")


def test_only_known_revisions_and_addresses(pair: Stack) -> None:
    assert pair.internal("nobody", "/v1/completions", BODY).json()["error"]["code"] == "revision_not_found"
    assert pair.internal(LARGE, "/v1/completions/../../tokenize", BODY).status_code == 404
    assert pair.internal(LARGE, "/sleep", BODY).status_code == 404
    assert pair.internal(LARGE, "/v1/models").json()["data"][0]["id"] == LARGE
    assert sample(pair.internal(LARGE, "/metrics").text, "vllm:num_requests_running") == 0.0


def test_more_than_allowed_at_once_is_429(pair: Stack) -> None:
    pair.configure(limits=RouterLimits(internal_concurrency=1))
    long = {**BODY, "max_tokens": 60, "ignore_eos": True}
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: pair.internal(LARGE, "/v1/completions", long), range(6)))
    statuses = [reply.status_code for reply in replies]
    assert 200 in statuses and 429 in statuses and set(statuses) == {200, 429}
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"
