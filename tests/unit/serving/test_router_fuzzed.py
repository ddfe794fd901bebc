"""Hostile bodies, headers and engines: every answer is an HTTP answer of OpenAI's form, none is the router's own 500."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policies_made import made
from router_double import Setup, fine, router

from leanmodel_api.policy import Scope

Case = tuple[str, bytes, dict[str, str]]
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/classify",
    "/v1/models",
    "/v1/models/x",
    "/engines/a/v1",
    "/x",
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.integers(0, 4), st.just(10**400))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20), st.just("m"), st.just("user"))
JSON = st.recursive(
    LEAVES,
    lambda of: st.one_of(st.lists(of, max_size=4), st.dictionaries(st.text(max_size=8), of, max_size=4)),
    max_leaves=12,
)
FIELDS = [
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "logprobs",
    "top_logprobs",
    "stream",
    "stream_options",
    "stop",
    "tools",
    "tool_choice",
    "functions",
    "response_format",
    "seed",
    "user",
    "metadata",
    "best_of",
    "echo",
    "suffix",
    "logit_bias",
    "presence_penalty",
    "prompt",
    "messages",
    "model",
    "input",
]
MESSAGES = st.one_of(
    JSON,
    st.lists(
        st.fixed_dictionaries(
            {}, optional={"role": LEAVES, "content": JSON, "tool_calls": JSON, "name": LEAVES}
        ),
        max_size=4,
    ),
)
BODIES = st.builds(
    lambda base, more, messages: {**base, **({"messages": messages} if messages is not None else {}), **more},
    st.sampled_from(
        [
            {},
            {"model": "m", "prompt": "p"},
            {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
            {"model": "m", "input": "a"},
            {"model": "m", "prompt": "p", "\x1f\r\n": 1},
        ]
    ),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4),
    st.one_of(st.none(), MESSAGES),
)
RAW = st.one_of(
    BODIES.map(lambda body: json.dumps(body).encode()),
    BODIES.map(lambda body: json.dumps(body).encode()[:-3]),
    st.binary(max_size=60),
    JSON.map(lambda body: json.dumps(body).encode()),
    st.just(b"[" * 5000),
    st.just(b'{"a":' * 3000),
)
VALUES = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "x-leanmodel-route",
            "x-leanmodel-max-cost-usd",
            "x-leanmodel-min-confidence",
            "x-session-id",
            "x-request-id",
            "traceparent",
            "authorization",
            "content-type",
        ]
    ),
    st.one_of(st.sampled_from(["lean", "large", "0", "0.5", "1e999", "nan", "-1", "", " "]), VALUES),
    max_size=3,
)
CASES = st.tuples(st.sampled_from(PATHS), RAW, HEADERS)


def rules(hold_back: int | None) -> dict[str, Any]:
    """A cascade that reads answers, with everything that a request may ask for allowed."""
    scope = Scope(decision=Scope.reading(hold_back))
    policy = made("combined", scope=scope, threshold=0.4).model_dump(mode="json")
    return {"strategy": "Cascade", "policy": policy, "overrides": True}


async def ask(setup: Setup, case: Case, *, passed_on: bool) -> None:
    """Send one, and hold the answer to what clients rely on."""
    path, body, headers = case
    sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    for method in ("POST", "GET"):
        content = body if method == "POST" else None
        reply = await asyncio.wait_for(setup.client.request(method, path, content=content, headers=sent), 20)
        told = f"{method} {path} {headers} {body[:300]!r} -> {reply.status_code} {reply.text[:300]}"
        assert reply.status_code != 500, told
        # What a server refuses to send would be no answer at all: a field's name may stand in a header.
        assert all(byte >= 0x20 and byte != 0x7F for _, value in reply.headers.raw for byte in value), told
        if reply.status_code >= 400:
            error = reply.json()["error"]
            assert isinstance(error["message"], str), told
            # An engine's own refusal is passed on as it is; ours has all that clients look for.
            assert passed_on or (error["message"] and set(error) >= {"type", "param", "code"}), told
        elif "event-stream" in reply.headers.get("content-type", ""):
            # What is within a stream of the large model is its engine's own: nobody reads it on the way.
            assert reply.content.endswith(b"data: [DONE]\n\n"), told


def fuzz(
    folder: Path, engine: Callable[[web.Request], Awaitable[web.StreamResponse]], cases: list[Case]
) -> None:
    """Send all to one router before two engines of a kind, by whole answers and by prefixes."""

    async def scenario() -> None:
        for hold_back in (None, 1):
            async with router(
                folder, engine, engine, rules=rules(hold_back), internal_concurrency=4
            ) as setup:
                for case in cases:
                    await ask(setup, case, passed_on=engine is not fine)

    asyncio.run(scenario())


COMMON = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@COMMON
@given(st.lists(CASES, min_size=8, max_size=12))
def test_no_body_and_no_header_breaks_the_router(tmp_path: Path, cases: list[Case]) -> None:
    fuzz(tmp_path, fine, cases)


REPLIES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda body: json.dumps(body).encode()),
    st.fixed_dictionaries(
        {}, optional={"choices": st.one_of(JSON, st.lists(st.fixed_dictionaries({}, optional={
            "index": JSON, "text": JSON, "message": JSON, "delta": JSON, "logprobs": JSON, "finish_reason": JSON}), max_size=2)),
            "usage": JSON, "error": JSON, "model": JSON},
    ).map(lambda body: json.dumps(body).encode()),
)  # fmt: skip


@COMMON
@given(
    st.lists(
        st.tuples(st.sampled_from([200, 200, 200, 400, 429, 500, 204]), REPLIES, st.booleans()),
        min_size=4,
        max_size=8,
    )
)
def test_no_engine_breaks_the_router(tmp_path: Path, replies: list[tuple[int, bytes, bool]]) -> None:
    coming = iter(replies * 1000)

    async def odd(request: web.Request) -> web.StreamResponse:
        await request.read()
        status, body, stream = next(coming)
        if not stream:
            return web.Response(status=status, body=body, content_type="application/json")
        response = web.StreamResponse(status=status, headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if status != 204:
            for _ in range(2):
                await response.write(b"data: " + body.replace(b"\n", b" ") + b"\n\n")
            await response.write(b"data: [DONE]\n\n")
        return response

    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    bodies = [
        {**body, "stream": stream}
        for body in ({"model": "m", "prompt": "p"}, chat)
        for stream in (True, False)
    ]
    cases = [
        (PATHS["messages" not in body], json.dumps(body).encode(), {}) for body in bodies for _ in replies
    ]
    fuzz(tmp_path, odd, cases)
