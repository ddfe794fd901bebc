"""An engine that counts what is under way, as vLLM's num_requests_running does, and goes on when it is told to.

Prompts are ``<name> <tokens>``, or a name for one: the answer is so many tokens, of which :func:`text` knows every
byte. It waits for ``go_on`` before a whole answer, and in a stream before token ``hold_at``. ``flood`` never ends, and never waits.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

FLOOD = "x" * 2**16


def token(name: str, number: int) -> str:
    """One token of the answer to a prompt."""
    return f"{name}-{number} "


def tokens(prompt: str) -> list[str]:
    """The answer to a prompt."""
    name, _, count = prompt.partition(" ")
    return [token(name, number) for number in range(int(count or 1))]


def text(prompt: str) -> str:
    """The whole answer to a prompt."""
    return "".join(tokens(prompt))


class CountingEngine:
    """Serves as many models as are asked for by name.

    Attributes:
        url: its base address, set once it is up.
        running: requests under way, by model.
        asked: requests that came, by model.
        stopped: requests that were given up by who asked, by model.
        written: bytes of floods that were taken from it.
        go_on: set, it waits for nothing.
        hold_at: token of a stream before which it waits.
        logprob: of each token.
        pace: seconds before each token of a stream.
    """

    def __init__(self, hold_at: int, logprob: float, pace: float) -> None:
        self.url = ""
        self.running: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.stopped: Counter[str] = Counter()
        self.written, self.hold_at, self.logprob, self.pace = 0, hold_at, logprob, pace
        self.go_on = asyncio.Event()
        self._changed = asyncio.Event()

    async def until(self, look: Callable[[], bool], seconds: float, what: str) -> None:
        """Return once what it counts is so."""
        try:
            async with asyncio.timeout(seconds):
                while not look():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s: {what}; {dict(self.running)} running") from None

    async def idle(self, seconds: float = 20.0) -> None:
        """Return once nothing is under way."""
        await self.until(lambda: not self.running.total(), seconds, "nothing is under way")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        model = body["model"]
        self.running[model] += 1
        self.asked[model] += 1
        self._changed.set()
        try:
            return await self._answer(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.stopped[model] += 1
            raise
        finally:
            self.running[model] -= 1
            self._changed.set()

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return await (self._stream if body.get("stream") else self._whole)(request, body)

    def _choice(self, body: dict[str, Any], *tokens: str) -> dict[str, Any]:
        logprobs = {
            "tokens": list(tokens), "token_logprobs": [self.logprob] * len(tokens), "text_offset": [0] * len(tokens),
            "top_logprobs": [{one: self.logprob, "y": -4.0} for one in tokens],
        }  # fmt: skip
        asked = body.get("logprobs") is not None
        return {
            "index": 0, "text": "".join(tokens), "logprobs": logprobs if asked else None, "finish_reason": None,
        }  # fmt: skip

    async def _whole(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await self.go_on.wait()
        said = tokens(body["prompt"])
        choice = self._choice(body, *said)
        usage = {"prompt_tokens": 2, "completion_tokens": len(said)}
        found = {"model": body["model"], "choices": [{**choice, "finish_reason": "stop"}], "usage": usage}
        return web.json_response(found)

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)

        async def say(choices: list[Any], **more: Any) -> None:
            data = json.dumps({"model": body["model"], "choices": choices, **more})
            await response.write(f"data: {data}\n\n".encode())

        while body["prompt"] == "flood":
            await say([self._choice(body, FLOOD)])
            self.written += len(FLOOD)
        said = tokens(body["prompt"])
        for number, one in enumerate(said):
            if number == self.hold_at:
                await self.go_on.wait()
            if self.pace:
                await asyncio.sleep(self.pace)
            await say([self._choice(body, one)])
        await say([{**self._choice(body), "finish_reason": "stop"}])
        await say([], usage={"prompt_tokens": 2, "completion_tokens": len(said)})
        await response.write(b"data: [DONE]\n\n")
        return response


@asynccontextmanager
async def counting_engine(
    hold_at: int = 4,
    logprob: float = -0.05,
    pace: float = 0.0,
    made_by: type[CountingEngine] = CountingEngine,
) -> AsyncIterator[CountingEngine]:
    """The engine in this event loop."""
    found = made_by(hold_at, logprob, pace)
    served = web.Application()
    served.router.add_post("/v1/completions", found.handle)
    runner = web.AppRunner(served, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        found.go_on.set()
        await runner.cleanup()
