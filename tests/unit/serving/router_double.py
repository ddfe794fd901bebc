"""The real router app before engines that behave as told: a real HTTP server on this side of the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from leanmodel_api.router import Backend, RouterLimits, RouterSettings
from leanmodel_api.serving import Price
from leanmodel_serving.ledger.clerk import Clerk
from leanmodel_serving.metrics import METRICS, Meters
from leanmodel_serving.router.app import RouterApp
from leanmodel_serving.router.snapshot import SettingsFile
from leanmodel_serving.router.state import StateFile
from leanmodel_serving.router.upstream import Upstream

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ASK = {"model": "m", "prompt": "p"}


class Recorder:
    """A metric that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, dict[str, str]]] = []

    def take(self, value: float, labels: dict[str, str]) -> None:
        self.calls.append((value, dict(labels)))

    inc = observe = set = take


@dataclass
class Setup:
    client: httpx.AsyncClient
    meters: dict[str, Recorder]
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    app: RouterApp = field(init=False)

    def statuses(self) -> list[tuple[str, str]]:
        return [(labels["route"], labels["status"]) for _, labels in self.meters["leanmodel_requests"].calls]


def answer(model: str) -> dict[str, Any]:
    choice = {"index": 0, "text": f"from {model}", "logprobs": None, "finish_reason": "stop"}
    return {"model": model, "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}


async def fine(request: web.Request) -> web.StreamResponse:
    """What a sound engine does."""
    body = await request.json()
    if not body.get("stream"):
        return web.json_response(answer(body["model"]))
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    chunk = {**answer(body["model"]), "usage": None}
    usage = {"model": body["model"], "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    for data in (json.dumps(chunk), json.dumps(usage), "[DONE]"):
        await response.write(f"data: {data}\n\n".encode())
    return response


async def cut(request: web.Request) -> web.StreamResponse:
    """Begin a stream and drop the connection."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b'data: {"model": "broken", "choices": [{"index": 0, "text": "half"}]}\n\n')
    assert request.transport is not None
    request.transport.abort()
    return response


async def early(request: web.Request) -> web.StreamResponse:
    """End a stream as if that were all of it."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b'data: {"model": "broken", "choices": [{"index": 0, "text": "half"}]}\n\n')
    return response


async def torn(request: web.Request) -> web.StreamResponse:
    """Begin a whole answer and drop the connection."""
    response = web.StreamResponse(headers={"content-type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"model": "half')
    assert request.transport is not None
    request.transport.abort()
    return response


async def html(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="<html>no server</html>", content_type="text/html")


async def refuse(request: web.Request) -> web.StreamResponse:
    return web.json_response(
        {"error": {"message": "too long", "type": "x", "param": None, "code": 400}}, status=400
    )


async def nonsense(request: web.Request) -> web.StreamResponse:
    return web.Response(status=200, text="hello", content_type="text/plain")


@asynccontextmanager
async def router(
    tmp_path: Path,
    large: Handler,
    lean: Handler | None = None,
    reports: Path | None = None,
    rules: dict[str, Any] | None = None,
    kept: StateFile | None = None,
    price: Price | None = None,
    clerk: Clerk | None = None,
    keys: Path | None = None,
    **limits: Any,
) -> AsyncIterator[Setup]:
    """A router whose two engines behave as given; ``rules`` are further settings."""
    setup = Setup(httpx.AsyncClient(), {row.name: Recorder() for row in METRICS})

    def behaving(name: str, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            setup.seen.append((name, dict(request.headers)))
            try:
                return await handler(request)
            except asyncio.CancelledError:
                setup.hung_up.set()
                raise

        return handle

    served = web.Application()
    served.router.add_get("/large/metrics", behaving("large", large))
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/embeddings"):
        served.router.add_post(f"/large{path}", behaving("large", large))
        served.router.add_post(f"/lean{path}", behaving("lean", lean or fine))
    runner = web.AppRunner(served, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    settings = RouterSettings(
        model="m", large=Backend(revision="large", url=f"http://127.0.0.1:{port}/large", price=price),
        lean=Backend(revision="lean", url=f"http://127.0.0.1:{port}/lean", price=price),
        limits=RouterLimits(**limits), **{"strategy": "AllLean" if lean else "AllLarge", **(rules or {})},
    )  # fmt: skip
    file = tmp_path / "router.json"
    file.write_text(settings.to_json())
    upstream = Upstream("engine-token")
    meters = Meters(setup.meters)
    app = RouterApp(SettingsFile(file), upstream, meters, "internal-token", reports, kept, clerk, keys)
    setup.app = app
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://router", timeout=20) as client:
        setup.client = client
        try:
            yield setup
        finally:
            await upstream.close()
            await app.shared.door.close()
            await runner.cleanup()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))
