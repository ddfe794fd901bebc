"""Streams that are decided on their first tokens: released from then on, or thrown away before a byte is out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web
from policies_made import made
from router_double import ASK, Setup, fine, router, run

from leanmodel_api.policy import Scope
from leanmodel_api.serving import Price
from leanmodel_serving.router.sse import EventReader

HELD = 3
STREAM = {**ASK, "prompt": "word " * 8, "stream": True, "temperature": 0}
PRICE = Price(inputUSDPerMillionTokens="1", outputUSDPerMillionTokens="1")


class Lean:
    """A lean engine that sends so many tokens of a log-probability each, and waits in the middle."""

    def __init__(
        self, logprob: float, tokens: int, wait_after: int | None = None, usage: bool = True
    ) -> None:
        self.logprob, self.tokens, self.wait_after, self.usage = logprob, tokens, wait_after, usage
        self.go_on, self.asked = asyncio.Event(), {}  # type: ignore[var-annotated]

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked = await request.json()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(1, self.tokens + 1):
            if self.wait_after is not None and number > self.wait_after:
                await self.go_on.wait()
            logprobs = {
                "token_logprobs": [self.logprob],
                "tokens": ["t"],
                "top_logprobs": [{"t": self.logprob}],
            }
            choice = {"index": 0, "text": "t", "logprobs": logprobs, "finish_reason": None}
            chunk: dict[str, Any] = {"model": "lean", "choices": [choice]}
            if self.usage:
                chunk["usage"] = {"prompt_tokens": 7, "completion_tokens": number}
            await self._send(response, chunk)
        last = {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
        await self._send(response, {"model": "lean", "choices": [last]})
        usage = {"prompt_tokens": 7, "completion_tokens": self.tokens}
        await self._send(response, {"model": "lean", "choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _send(self, response: web.StreamResponse, chunk: dict[str, Any]) -> None:
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())


def rules(hold_back: int | None = HELD) -> dict[str, Any]:
    scope = Scope(endpoint="completions", decision=Scope.reading(hold_back), temperature=0.0)
    return {
        "strategy": "Cascade",
        "policy": made("cascade", scope=scope, threshold=0.4).model_dump(mode="json"),
    }


def chunks(text: str) -> list[dict[str, Any]]:
    return [json.loads(data) for data in EventReader().feed(text.encode()) if data != b"[DONE]"]


def lean_tokens(setup: Setup) -> dict[str, float]:
    found: dict[str, float] = {}
    for value, labels in setup.meters["leanmodel_tokens"].calls:
        if labels["role"] == "lean":
            kind = labels["gen_ai_token_type"]
            found[kind] = found.get(kind, 0) + value
    return found


def test_a_sure_beginning_is_out_before_the_rest_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        # The engine goes on only once the client has got something: held back to the end, this would never end.
        lean = Lean(-0.01, 20, wait_after=HELD + 1)
        async with router(tmp_path, fine, lean, rules=rules(), price=PRICE) as setup:
            app, got, sent = setup.app, asyncio.Event(), []
            body = json.dumps({**STREAM, "stream_options": {"include_usage": True}}).encode()
            given = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def receive() -> Any:
                found = next(given, None)
                return found if found else await asyncio.Event().wait()

            async def send(message: Any) -> None:
                sent.append(message)
                if message["type"] == "http.response.body" and message.get("body"):
                    got.set()

            scope = {
                "type": "http",
                "method": "POST",
                "path": "/v1/completions",
                "headers": [],
                "query_string": b"",
            }
            task = asyncio.ensure_future(app(scope, receive, send))
            await asyncio.wait_for(got.wait(), 10)
            lean.go_on.set()
            await task
            headers = dict(sent[0]["headers"])
            assert headers[b"x-leanmodel-route"] == b"lean" and b"x-leanmodel-confidence" in headers
            *found, last = chunks(b"".join(m.get("body", b"") for m in sent[1:]).decode())
            assert "".join(c["choices"][0]["text"] for c in found) == "t" * 20
            assert all(c["choices"][0]["logprobs"] is None and not c.get("usage") for c in found)
            assert last["usage"]["completion_tokens"] == 20 and last["usage"]["cost_usd"] == "0.000027000"
            assert lean.asked["stream_options"]["continuous_usage_stats"] is True
            assert lean_tokens(setup) == {"input": 7, "output": 20}

    run(scenario)


def test_an_unsure_beginning_is_thrown_away_and_paid_for(tmp_path: Path) -> None:
    async def scenario(usage: bool) -> None:
        lean = Lean(-5.0, 20, wait_after=HELD + 1, usage=usage)
        async with router(tmp_path, fine, lean, rules=rules(), price=PRICE) as setup:
            reply = await setup.client.post("/v1/completions", json=STREAM)
            assert reply.headers["x-leanmodel-route"] == "escalated"
            assert {c["model"] for c in chunks(reply.text)} == {"large"}
            await asyncio.wait_for(setup.hung_up.wait(), 10)  # the engine is not left to finish it
            assert lean_tokens(setup) == {"input": 7 if usage else 10, "output": HELD + 1}

    run(lambda: scenario(usage=True))
    run(lambda: scenario(usage=False))


def test_a_short_answer_is_judged_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        for logprob, route in ((-0.01, "lean"), (-5.0, "escalated")):
            async with router(tmp_path, fine, Lean(logprob, HELD), rules=rules(), price=PRICE) as setup:
                reply = await setup.client.post("/v1/completions", json=STREAM)
                assert reply.headers["x-leanmodel-route"] == route
                assert lean_tokens(setup) == {"input": 7, "output": HELD}

    run(scenario)


def test_without_a_prefix_the_whole_is_held_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        lean = Lean(-5.0, 20)
        async with router(tmp_path, fine, lean, rules=rules(None), price=PRICE) as setup:
            reply = await setup.client.post("/v1/completions", json=STREAM)
            assert reply.headers["x-leanmodel-route"] == "escalated"
            assert "continuous_usage_stats" not in lean.asked["stream_options"]
            assert lean_tokens(setup) == {"input": 7, "output": 20}

    run(scenario)
