"""What clients see of models and providers that fail, and what is left at an engine of clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from counting_engine import CountingEngine, counting_engine, text
from fault_run import SCOPE, TOKENS, body, settings
from leaving_clients import WAYS, asked, leave
from ledger_run import free_port
from policies_made import made
from provider_double import access
from router_running import Running, ran

from leanmodel_api.external import Patience
from leanmodel_api.router import Backend, Resilience, RouterLimits

PATIENCE_S = 3.0
WAIT_S = 60.0
THEIRS = "theirs"
FAULTS = {
    "is down": "answers 500 in HTML",
    "is busy": "answers 429",
    "hangs up": "closes the connection at once",
    "is silent": f"says nothing for {PATIENCE_S:g} s, the bound of the run",
    "stops": f"says half of it, then nothing for {PATIENCE_S:g} s",
    "breaks": "says half of it, and the connection breaks",
    "ends": "says half of it, and ends as if that were all",
}
MOMENTS = {
    "a whole answer is computed": (0.4, False, TOKENS),
    "the beginning is held back": (0.4, True, 1),
    "the lean model streams": (0.4, True, 4),
    "the large model streams, escalated": (0.9, True, 4),
}
"""When clients leave: the policy's threshold, whether they stream, and the token before which the engine waits."""


class FaultyEngine(CountingEngine):
    """Has the fault that a prompt names, ``<model>/<fault> <tokens>``, where it is that model; any other answers."""

    async def _answer(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        model, _, fault = asked["prompt"].partition(" ")[0].replace("-", " ").partition("/")
        if model != asked["model"]:
            return await super()._answer(request, asked)
        stream = bool(asked.get("stream"))
        if fault == "is down":
            return web.Response(status=500, text="<html>no server</html>", content_type="text/html")
        if fault == "is busy":
            words = {"message": "too many requests", "type": "rate_limit_error", "param": None, "code": None}
            return web.json_response({"error": words}, status=429)
        assert request.transport is not None
        if fault == "hangs up":
            request.transport.abort()
        if fault in ("hangs up", "is silent"):
            await asyncio.Event().wait()
        kind = "text/event-stream" if stream else "application/json"
        response = web.StreamResponse(headers={"content-type": kind})
        await response.prepare(request)
        choice = {"index": 0, "text": "half", "logprobs": None, "finish_reason": None}
        half = json.dumps({"model": asked["model"], "choices": [choice]})
        await response.write(f"data: {half}\n\n".encode() if stream else half[:-2].encode())
        if fault == "breaks":
            request.transport.abort()
        if fault in ("breaks", "stops"):
            await asyncio.Event().wait()
        return response


@dataclass
class Row:
    """What clients saw of one fault.

    Attributes:
        who: who has it.
        fault: which.
        whole: what those saw that asked for a whole answer, and how many.
        stream: what those saw that asked for a stream.
        running: requests at the engines once all had their answers, and a moment had passed.
    """

    who: str
    fault: str
    whole: Counter[str] = field(default_factory=Counter)
    stream: Counter[str] = field(default_factory=Counter)
    running: int = 0

    @property
    def wrong(self) -> list[str]:
        """Return what must not be, in words."""
        found = [
            f"{self.who} {self.fault}: {saw}" for saw in (self.whole | self.stream) if saw.startswith("!")
        ]
        return found + ([f"{self.who} {self.fault}: {self.running} left"] if self.running else [])


def saw(status: int, kind: str, raw: str, stream: bool, prompt: str) -> str:
    """Return what a client saw, in a few words; what must not be begins with an exclamation mark."""
    try:
        if kind != "text/event-stream":
            found = json.loads(raw)
            if status == 200:
                return (
                    _whole(found["model"], found["choices"][0]["text"], prompt)
                    if not stream
                    else "! no stream"
                )
            error = found["error"]
            assert isinstance(error["message"], str) and error["message"]
            return f"{status} `{error['code'] or error['type']}`"
        *events, last = raw.strip().split("\n\n")
        if last != "data: [DONE]":
            return "! a stream without its end"
        chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    except (ValueError, LookupError, TypeError, AssertionError):
        return f"! {status}, not in OpenAI's form: {raw[:80]!r}"
    errors = [chunk["error"] for chunk in chunks if "error" in chunk]
    if errors:
        return f"200, and an error event `{errors[0]['code']}`"
    said = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    return _whole("".join({chunk["model"] for chunk in chunks}), said, prompt)


def _whole(model: str, said: str, prompt: str) -> str:
    return f"200, answered by {model}" if said == text(prompt) else f"! 200, and not whole: {said[:40]!r}"


def bounds() -> dict[str, Any]:
    """Settings without second tries, rests and long waits."""
    waits = {"first_byte_timeout": PATIENCE_S, "idle_timeout": PATIENCE_S, "answer_timeout": PATIENCE_S}
    resting = Resilience(failures=1000, retries=0.0)
    return {"limits": RouterLimits(**waits), "resilience": resting, "overrides": True}


@asynccontextmanager
async def up(folder: Path) -> AsyncIterator[Running]:
    """A router process on a folder, started beside this event loop."""
    starting = ran(folder)
    router = await asyncio.to_thread(starting.__enter__)
    try:
        yield router
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)


async def failing(folder: Path, each: int) -> list[Row]:
    """Ask ``each`` times for a whole answer and for a stream, under every fault of lean, large and provider."""
    rows: list[Row] = []
    patience = Patience(first_byte_timeout=PATIENCE_S, idle_timeout=PATIENCE_S, answer_timeout=PATIENCE_S)
    async with counting_engine(made_by=FaultyEngine) as engine:
        engine.go_on.set()
        outside = access(f"{engine.url}/v1", folder, patience=patience)
        for external in (None, outside):
            file = folder / "router.json"
            given = settings(engine.url, external=external, **bounds())
            if external is not None:  # is asked when the large model cannot be
                gone = Backend(revision="large", url=f"http://127.0.0.1:{free_port()}")
                policy = made("predictive", ask_at=0.9999, scores=None)
                given = given.model_copy(update={"large": gone, "policy": policy})
            file.write_text(given.to_json())
            async with up(folder) as router, aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=WAIT_S)
            ) as session:  # fmt: skip
                for who in ("lean", "large") if external is None else (THEIRS,):
                    for fault in FAULTS:
                        rows.append(await _row(session, router, engine, who, fault, each))
    return rows


async def _row(
    session: aiohttp.ClientSession,
    router: Running,
    engine: CountingEngine,
    who: str,
    fault: str,
    each: int,
) -> Row:
    row = Row(who, fault)
    prompt = f"{who}/{fault.replace(' ', '-')} {TOKENS}"

    async def one(stream: bool) -> None:
        headers = {} if who == THEIRS else {"x-leanmodel-route": who}
        asked = body(prompt, stream)
        counts = row.stream if stream else row.whole
        try:
            async with session.post(f"{router.url}/v1/completions", json=asked, headers=headers) as reply:
                raw = await reply.text()
                counts[saw(reply.status, reply.content_type, raw, stream, prompt)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            counts[f"! {type(error).__name__}"] += 1

    await asyncio.gather(*(one(stream) for stream in (False, True) for _ in range(each)))
    try:
        await engine.idle()
    except AssertionError:
        row.running = engine.running.total()
    return row


@dataclass
class Left:
    """What was left of clients that left at one moment."""

    moment: str
    clients: int
    stopped: int
    running: int


async def leaving(folder: Path, clients: int) -> list[Left]:
    """Have so many clients leave at each moment, by a close, a reset and a half-close in turn."""
    rows = []
    async with counting_engine() as engine:
        for number, (moment, (threshold, stream, hold_at)) in enumerate(MOMENTS.items()):
            policy = made("cascade", scope=SCOPE, threshold=threshold, scores=None)
            (folder / "router.json").write_text(settings(engine.url, policy=policy).to_json())
            engine.hold_at = hold_at
            model = "large" if "large" in moment else "lean"
            before = engine.stopped[model]
            async with up(folder) as router:
                gone = [
                    await asked(router, f"m{number}c{index} {TOKENS}", stream) for index in range(clients)
                ]
                await engine.until(lambda model=model: engine.running[model] == clients, WAIT_S, moment)
                for index, client in enumerate(gone):
                    await leave(client, WAYS[index % len(WAYS)])
                await engine.idle()
            rows.append(Left(moment, clients, engine.stopped[model] - before, engine.running.total()))
    return rows
