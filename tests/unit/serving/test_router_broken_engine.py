"""The router before engines that break."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web
from policies_made import made
from router_double import ASK, Handler, cut, fine, html, nonsense, refuse, router, run


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
        async with router(tmp_path, silent, first_byte_timeout=0.2, answer_timeout=0.2) as setup:
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
    judged = {"strategy": "Cascade", "policy": made("cascade")}

    async def scenario() -> None:
        async with router(tmp_path, fine, lean=behaviour, rules=judged) as setup:
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
