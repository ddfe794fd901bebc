"""The external provider through Ray Serve and HAProxy, before a large model that is down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from provider_double import COST, KEY, Recorded, access, completion, opened, provider, say, sound
from serving_support import LARGE, NAME, Stack, free_port, replace, sample, until

from leanmodel_api.router import Resilience

pytestmark = pytest.mark.long
UP_S = 600.0


@dataclass
class Outside:
    """A router alone, without an engine of ours; provider and large model are servers in a thread."""

    stack: Stack
    theirs: Recorded

    def ask(self, **body: Any) -> httpx.Response:
        return self.stack.post("/v1/completions", {"prompt": "private", **body})


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    loop, up, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[Recorded] = []

    async def large(request: web.Request) -> web.StreamResponse:
        """A large model for the router's own first generation; it is gone afterwards."""
        return web.json_response(completion("from large"))

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/large/v1/completions", large)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with provider() as theirs:
            found.append(theirs)
            addresses.append(f"http://127.0.0.1:{runner.addresses[0][1]}/large")
            up.set()
            await over.wait()
        await runner.cleanup()

    addresses: list[str] = []
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert up.wait(30)
    stack = Stack(folder, {})
    stack.write(large=stack.backend(LARGE, url=addresses[0]))
    stack.want()
    stack.start()
    try:
        until(lambda: stack.ready("router"), UP_S, "the router answers")
        yield Outside(stack, found[0])
    finally:
        code = stack.stop()
        stack.client.close()
        loop.call_soon_threadsafe(over.set)
        thread.join()
    assert code == 0, stack.log()


def arm(outside: Outside, permission: Any = "Allowed", **changes: Any) -> None:
    stack = outside.stack
    outside.theirs.requests.clear()
    outside.theirs.behaviour = sound
    stack.configure(
        large=stack.backend(LARGE, url=f"http://127.0.0.1:{free_port()}/gone"),
        external=access(outside.theirs.url, stack.folder, permission), **changes,
    )  # fmt: skip


def test_it_answers_and_is_counted(outside: Outside) -> None:
    arm(outside)
    whole, stream = outside.ask(), outside.ask(stream=True, stream_options={"include_usage": True})
    for reply in (whole, stream):
        assert reply.status_code == 200 and "from provider" in reply.text
        assert reply.headers["x-leanmodel-route"] == "external"
    assert float(whole.headers["x-leanmodel-cost-usd"]) == pytest.approx(COST)
    assert [headers["authorization"] for _, headers, _ in outside.theirs.requests] == [f"Bearer {KEY}"] * 2

    def counted() -> bool:
        return (
            sample(outside.stack.metrics(), "ray_leanmodel_external_requests_total", result="answered") == 2
        )

    until(counted, 20.0, "both are counted")
    text = outside.stack.metrics()
    assert sample(text, "ray_leanmodel_cost_usd_total", route="external") == pytest.approx(2 * COST)
    assert sample(text, "ray_leanmodel_backend_state", role="external") == 0.0
    assert sample(text, "ray_leanmodel_retries_total", role="large") > 0, "the large model was tried twice"


def test_a_renewed_key_is_used_by_the_next_request(outside: Outside) -> None:
    arm(outside)
    replace(outside.stack.folder / "apiKey", "sk-renewed")
    assert outside.ask().status_code == 200
    assert outside.theirs.requests[-1][1]["authorization"] == "Bearer sk-renewed"


def test_forbidden_nothing_leaves_and_it_is_503(outside: Outside) -> None:
    arm(outside, "Forbidden", resilience=Resilience(failures=1000))
    connections = outside.theirs.connections
    for stream in (False, True):
        reply = outside.ask(stream=stream)
        assert reply.status_code == 503 and int(reply.headers["retry-after"]) > 0
    arm(outside, resilience=Resilience(failures=1000))
    settings = outside.stack.settings_file
    whole = settings.read_text()
    for broken in (whole[: len(whole) // 2], ""):
        replace(settings, broken)
        assert outside.ask().status_code == 503
    settings.unlink()
    assert outside.ask().status_code == 503
    assert not outside.theirs.requests and outside.theirs.connections == connections
    replace(settings, whole)
    assert outside.ask().status_code == 200 and len(outside.theirs.requests) == 1


def _sent(outside: Outside, stream: bool) -> socket.socket:
    raw = json.dumps({"model": NAME, "prompt": "private", "stream": stream}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(raw)}\r\nconnection: close\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", outside.stack.port), timeout=60.0)
    client.sendall(head.encode() + raw)
    return client


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_hangs_up_on_the_provider(outside: Outside, stream: bool) -> None:
    arm(outside)

    async def endless(request: web.Request) -> web.StreamResponse:
        if stream:
            await say(await opened(request), {**completion("half"), "usage": None})
        await asyncio.Event().wait()
        raise AssertionError

    outside.theirs.behaviour = endless
    before = outside.theirs.hung_up
    with _sent(outside, stream):
        until(lambda: outside.theirs.requests, 30.0, "the provider is at work")
    until(lambda: outside.theirs.hung_up == before + 1, 10.0, "the provider was told to stop")


def test_a_half_closed_client_gets_all_of_its_answer_or_nobody_works_for_it(outside: Outside) -> None:
    """It has said that it sends no more, and may still read. HAProxy decides which of the two it is."""
    arm(outside)

    async def slow(request: web.Request) -> web.StreamResponse:
        response = await opened(request)
        for number in range(100):
            await say(response, {**completion(f"part {number}"), "usage": None})
            await asyncio.sleep(0.02)
        await say(response, {**completion("whole"), "usage": None}, "[DONE]")
        return response

    outside.theirs.behaviour = slow
    before = outside.theirs.hung_up
    with _sent(outside, stream=True) as client:
        until(lambda: outside.theirs.requests, 30.0, "the provider is at work")
        client.shutdown(socket.SHUT_WR)
        text = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65536):
                text += piece
    if b"[DONE]" in text:
        assert text.count(b"part ") >= 100 and b"whole" in text
        assert outside.theirs.hung_up == before
    else:
        until(lambda: outside.theirs.hung_up == before + 1, 10.0, "the provider was told to stop")


def test_the_key_is_in_no_environment_and_no_log(outside: Outside) -> None:
    arm(outside)
    assert outside.ask().status_code == 200
    for pid in outside.stack.status()["pids"]:
        environment = Path(f"/proc/{pid}/environ")
        assert not environment.exists() or KEY.encode() not in environment.read_bytes()
    assert KEY not in (outside.stack.folder / "host.log").read_text()
    logs = [
        file for file in outside.stack.run_dir.rglob("*") if file.is_file() and file.stat().st_size < 2**24
    ]
    assert logs and not [file for file in logs if KEY.encode() in file.read_bytes()]
