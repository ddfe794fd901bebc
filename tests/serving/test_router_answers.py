"""What a client sees of the large model alone: plain and streaming, raw and by the openai package."""

from __future__ import annotations

import json
from decimal import Decimal

import openai
import pytest
from serving_support import LARGE, NAME, Stack, events

CHAT = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def client(stack: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key="unused", max_retries=0)


def test_models_lists_the_leanmodel(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME


def test_chat_by_the_openai_client(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=NAME, messages=CHAT, max_tokens=4, temperature=0
    )
    answer = raw.parse()
    assert answer.model == LARGE
    assert answer.choices[0].message.content
    assert answer.choices[0].logprobs is None
    assert answer.usage is not None and answer.usage.completion_tokens == 4
    assert raw.headers["x-leanmodel-route"] == "large"
    assert raw.headers["x-leanmodel-revision"] == LARGE


def test_the_cost_is_tokens_by_the_measured_rate(stack: Stack) -> None:
    reply = stack.post("/v1/completions", {"prompt": "Hello there", "max_tokens": 3})
    tokens = reply.json()["usage"]["total_tokens"]
    # 0.36 dollars an hour at 100 tokens a second: a micro-dollar a token.
    assert Decimal(reply.headers["x-leanmodel-cost-usd"]) == Decimal(tokens) / 10**6
    assert reply.headers["x-leanmodel-cost-basis"] == "throughput"


def test_chat_stream_by_the_openai_client(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=NAME, messages=CHAT, max_tokens=6, temperature=0)
    chunks = list(
        client.chat.completions.create(model=NAME, messages=CHAT, max_tokens=6, temperature=0, stream=True)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert {chunk.model for chunk in chunks} == {LARGE}
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_usage_and_cost_when_asked(stack: Stack) -> None:
    body = {"prompt": "Hello", "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
    reply = stack.post("/v1/completions", body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "x-leanmodel-cost-usd" not in reply.headers
    *chunks, last = events(reply.text)
    assert last["choices"] == [] and all(chunk["choices"] for chunk in chunks)
    assert last["usage"]["completion_tokens"] == 3
    assert Decimal(last["usage"]["cost_usd"]) == Decimal(last["usage"]["total_tokens"]) / 10**6
    assert last["usage"]["route"] == "large"


def test_a_stream_comes_token_by_token(stack: Stack) -> None:
    body = {"model": NAME, "prompt": "Once", "max_tokens": 200, "stream": True, "ignore_eos": True}
    with stack.client.stream("POST", "/v1/completions", json=body) as reply:
        pieces = 0
        for piece in reply.iter_bytes():
            pieces += 1
            if pieces == 2:
                running = stack.running(LARGE)
                assert running == 1.0, "the first pieces must come while the engine is still at work"
            last = piece
    assert pieces > 20
    assert last.endswith(b"data: [DONE]\n\n")


def test_logprobs_pass_as_asked(stack: Stack) -> None:
    chat = stack.post(
        "/v1/chat/completions", {"messages": CHAT, "max_tokens": 2, "logprobs": True, "top_logprobs": 3}
    )
    assert [len(token["top_logprobs"]) for token in chat.json()["choices"][0]["logprobs"]["content"]] == [
        3,
        3,
    ]
    raw = stack.post("/v1/completions", {"prompt": "Hello", "max_tokens": 2, "logprobs": 1})
    assert len(raw.json()["choices"][0]["logprobs"]["token_logprobs"]) == 2


def test_a_request_keeps_its_id(stack: Stack) -> None:
    body = {"prompt": "Hello", "max_tokens": 1}
    assert stack.post("/v1/completions", body, headers={"x-request-id": "mine-1"}).headers[
        "x-leanmodel-request-id"
    ] == "mine-1"  # fmt: skip
    ids = {stack.post("/v1/completions", body).headers["x-leanmodel-request-id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/v1/completions", b"{not json", 400, "invalid_json"),
        ("/v1/completions", b"[1]", 400, "invalid_json"),
        ("/v1/completions", b'{"model": "support"}', 400, None),
        ("/v1/chat/completions", b'{"model": "support", "messages": []}', 400, None),
        ("/v1/chat/completions", b'{"model": "support", "messages": [{}], "stream": "yes"}', 400, None),
        ("/v1/chat/completions", b'{"model": "gpt", "messages": [{}]}', 404, "model_not_found"),
        ("/v1/completions", b'{"prompt": "a"}', 404, "model_not_found"),
        ("/v1/completions", b" " * (4 * 2**20 + 1), 413, "request_too_large"),
        ("/v1/embeddings", b"{}", 404, "other_task"),
        ("/engines/nobody/v1/completions", b"{}", 503, "engine_unavailable"),
    ],
)
def test_errors_have_openais_form(
    stack: Stack, path: str, content: bytes, status: int, code: str | None
) -> None:
    reply = stack.client.post(path, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == status
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code and error["message"]
    if status == 503:
        assert int(reply.headers["retry-after"]) > 0


def test_what_the_engine_refuses_passes_in_its_words(stack: Stack, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model=NAME, prompt="a", temperature=-1)
    with pytest.raises(openai.BadRequestError, match="1024"):
        client.completions.create(model=NAME, prompt="word " * 3000, max_tokens=1)
    streamed = stack.post("/v1/completions", {"prompt": "a", "temperature": -1, "stream": True})
    assert streamed.status_code == 400 and "temperature" in json.dumps(streamed.json())


def test_an_engine_is_not_reached_around_the_router(stack: Stack) -> None:
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {stack.token_file.read_text()}"},
    ):
        for path in ("/v1/models", "/metrics", "/health", "/v1/completions"):
            reply = stack.client.get(f"/engines/{LARGE}{path}", headers=headers)
            assert reply.status_code == 401, path


def test_a_dead_engine_is_503_with_retry_after(pair: Stack) -> None:
    from serving_support import free_port

    pair.configure(large=pair.backend("gone", url=f"http://127.0.0.1:{free_port()}/engines/gone"))
    for stream in (False, True):
        reply = pair.post("/v1/completions", {"prompt": "a", "stream": stream})
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "engine_unavailable"
        assert int(reply.headers["retry-after"]) > 0


def test_an_engine_that_is_not_up_is_503(pair: Stack) -> None:
    pair.configure(large=pair.backend("not-there"))
    assert pair.post("/v1/completions", {"prompt": "a"}).status_code == 503
