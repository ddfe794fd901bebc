"""The router before engines that break: a real HTTP server that misbehaves as told, and the real router app."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from leanmodel_api.router import Backend, RouterLimits, RouterSettings
from leanmodel_serving.metrics import METRICS, Meters
from leanmodel_serving.router.app import RouterApp
from leanmodel_serving.router.snapshot import SettingsFile
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
    tmp_path: Path, large: Handler, lean: Handler | None = None, reports: Path | None = None, **limits: Any
) -> AsyncIterator[Setup]:
    """A router whose two engines behave as given."""
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
    served.router.add_post("/large/v1/completions", behaving("large", large))
    served.router.add_post("/lean/v1/completions", behaving("lean", lean or fine))
    runner = web.AppRunner(served, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    settings = RouterSettings(
        model="m", large=Backend(revision="large", url=f"http://127.0.0.1:{port}/large"),
        lean=Backend(revision="lean", url=f"http://127.0.0.1:{port}/lean"),
        strategy="AllLean" if lean else "AllLarge", limits=RouterLimits(**limits),
    )  # fmt: skip
    file = tmp_path / "router.json"
    file.write_text(settings.to_json())
    upstream = Upstream("engine-token")
    app = RouterApp(SettingsFile(file), upstream, Meters(setup.meters), "internal-token", reports)
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://router", timeout=20) as client:
        setup.client = client
        try:
            yield setup
        finally:
            await upstream.close()
            await runner.cleanup()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [(html, 503, "engine_unavailable"), (nonsense, 502, "bad_gateway"), (cut, 502, "bad_gateway")],
)
def test_a_broken_large_engine_is_an_error_of_openais_form(
    tmp_path: Path, behaviour: Handler, status: int, code: str
) -> None:
    async def scenario() -> None:
        async with router(tmp_path, behaviour) as setup:
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert reply.status_code == status
            assert reply.json()["error"]["code"] == code
            assert setup.statuses() == [("none", str(status))]

    run(scenario)


def test_a_silent_engine_is_504(tmp_path: Path) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> None:
        async with router(tmp_path, silent, first_byte_timeout=0.2) as setup:
            for stream in (False, True):
                reply = await setup.client.post("/v1/completions", json={**ASK, "stream": stream})
                assert reply.status_code == 504
                assert int(reply.headers["retry-after"]) > 0

    run(scenario)


def test_a_stream_that_breaks_ends_with_an_error_event(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, cut) as setup:
            reply = await setup.client.post("/v1/completions", json={**ASK, "stream": True})
            lines = [line for line in reply.text.splitlines() if line]
            assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "bad_gateway"
            assert lines[-1] == "data: [DONE]"
            assert setup.statuses() == [("none", "502")]

    run(scenario)


@pytest.mark.parametrize("behaviour", [html, nonsense, cut, refuse])
@pytest.mark.parametrize("stream", [False, True])
def test_whatever_breaks_at_the_lean_engine_the_large_one_answers(
    tmp_path: Path, behaviour: Handler, stream: bool
) -> None:
    async def scenario() -> None:
        async with router(tmp_path, fine, lean=behaviour) as setup:
            reply = await setup.client.post("/v1/completions", json={**ASK, "stream": stream})
            assert reply.status_code == 200
            assert reply.headers["x-leanmodel-route"] == "escalated"
            assert "from large" in reply.text and "broken" not in reply.text and "half" not in reply.text
            assert setup.meters["leanmodel_escalations"].calls == [(1.0, {"reason": "lean_failed"})]

    run(scenario)


def test_a_request_that_is_itself_at_fault_opens_no_breaker(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, fine, lean=refuse) as setup:
            for _ in range(5):
                await setup.client.post("/v1/completions", json=ASK)
            assert [name for name, _ in setup.seen] == ["lean", "large"] * 5

    run(scenario)


def test_a_failing_lean_engine_is_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, fine, lean=html) as setup:
            for _ in range(6):
                await setup.client.post("/v1/completions", json=ASK)
            assert [name for name, _ in setup.seen] == ["lean", "large"] * 3 + ["large"] * 3
            assert len(setup.meters["leanmodel_lean_skipped"].calls) == 3

    run(scenario)


def test_a_refusal_passes_in_the_engines_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, refuse) as setup:
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert (reply.status_code, reply.json()["error"]["message"]) == (400, "too long")

    run(scenario)


def test_a_connection_closed_while_idle_is_not_the_clients_matter(tmp_path: Path) -> None:
    async def scenario() -> None:
        dropped = []

        async def drops_once(request: web.Request) -> web.StreamResponse:
            if not dropped and len(setup.seen) == 2:
                dropped.append(True)
                assert request.transport is not None
                request.transport.abort()
            return await fine(request)

        async with router(tmp_path, drops_once) as setup:
            for _ in range(3):
                assert (await setup.client.post("/v1/completions", json=ASK)).status_code == 200
            assert dropped

    run(scenario)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_request_hangs_up_on_the_engine(tmp_path: Path, stream: bool) -> None:
    async def scenario() -> None:
        asked = asyncio.Event()

        async def endless(request: web.Request) -> web.StreamResponse:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with router(tmp_path, endless) as setup:
            task = asyncio.create_task(setup.client.post("/v1/completions", json={**ASK, "stream": stream}))
            await asked.wait()
            task.cancel()
            await asyncio.wait_for(setup.hung_up.wait(), 5)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert setup.statuses() == [("none", "499")]

    run(scenario)


def test_engines_get_the_token_and_are_told_to_stop_with_us(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, fine) as setup:
            await setup.client.post("/v1/completions", json=ASK, headers={"x-request-id": "abc"})
            _, headers = setup.seen[0]
            lower = {name.lower(): value for name, value in headers.items()}
            assert lower["authorization"] == "Bearer engine-token"
            assert lower["x-request-disconnect-disabled"] == "?1"
            assert lower["x-request-id"] == "abc"

    run(scenario)


def test_no_prompt_is_ever_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        raise RuntimeError("engine bug")

    async def scenario() -> None:
        for behaviour in (fine, breaks, cut):
            async with router(tmp_path, behaviour) as setup:
                await setup.client.post("/v1/completions", json={**ASK, "prompt": "very private"})

    caplog.set_level("DEBUG", logger="ray.serve")
    run(scenario)
    assert "very private" not in caplog.text
