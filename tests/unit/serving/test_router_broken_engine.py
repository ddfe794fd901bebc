"""The router before engines that break."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web
from policies_made import made
from router_double import ASK, Handler, cut, early, fine, html, nonsense, refuse, router, run, torn


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


def ending(text: str) -> tuple[str, str]:
    """The code of the last event but one, and the last."""
    *_, last_but_one, last = [line.removeprefix("data: ") for line in text.splitlines() if line]
    return json.loads(last_but_one)["error"]["code"], last


@pytest.mark.parametrize("behaviour", [cut, early])
@pytest.mark.parametrize("strategy", ["AllLarge", "AllLean"])
def test_a_stream_that_breaks_ends_with_an_error_event(
    tmp_path: Path, behaviour: Handler, strategy: str
) -> None:
    """However it ends: what has not said that it is whole is not, and a client must not take it for whole."""

    async def scenario() -> None:
        async with router(tmp_path, behaviour, lean=behaviour, rules={"strategy": strategy}) as setup:
            reply = await setup.client.post("/v1/completions", json={**ASK, "stream": True})
            assert "half" in reply.text and ending(reply.text) == ("bad_gateway", "[DONE]")
            assert [status for _, status in setup.statuses()] == ["502"]

    run(scenario)


def test_a_stream_that_tells_of_a_failure_counts_as_one(tmp_path: Path) -> None:
    async def tells(request: web.Request) -> web.StreamResponse:
        response = await early(request)
        words = {"message": "EngineCore has died", "type": "InternalServerError", "param": None, "code": 500}
        await response.write(f"data: {json.dumps({'error': words})}\n\ndata: [DONE]\n\n".encode())
        return response

    async def scenario() -> None:
        async with router(tmp_path, tells) as setup:
            for _ in range(3):
                reply = await setup.client.post("/v1/completions", json={**ASK, "stream": True})
                assert reply.text.count("EngineCore has died") == reply.text.count("[DONE]") == 1
                assert "half" in reply.text and "bad_gateway" not in reply.text
            assert {status for _, status in setup.statuses()} == {"502"}
            after = await setup.client.post("/v1/completions", json={**ASK, "stream": True})
            assert after.status_code == 503 and len(setup.seen) == 3, "it is left alone for a while"

    run(scenario)


INTERNAL = {"authorization": "Bearer internal-token"}
INSIDE = "/internal/revisions/large/v1/completions"


@pytest.mark.parametrize("behaviour", [cut, early])
def test_the_internal_route_leaves_no_stream_unfinished(tmp_path: Path, behaviour: Handler) -> None:
    async def scenario() -> None:
        async with router(tmp_path, behaviour) as setup:
            body = {**ASK, "stream": True}
            reply = await setup.client.post(INSIDE, json=body, headers=INTERNAL)
            assert "half" in reply.text and ending(reply.text) == ("bad_gateway", "[DONE]")
            assert setup.meters["leanmodel_internal_requests"].calls == [(1.0, {"status": "502"})]

    run(scenario)


def test_the_internal_route_says_nothing_of_an_answer_that_is_not_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, torn) as setup:
            for reply in (
                await setup.client.post(INSIDE, json=ASK, headers=INTERNAL),
                await setup.client.get("/internal/revisions/large/metrics", headers=INTERNAL),
            ):
                assert (reply.status_code, reply.json()["error"]["code"]) == (502, "bad_gateway")

    run(scenario)


def test_the_internal_route_passes_a_stream_on_byte_for_byte_wherever_it_is_cut(tmp_path: Path) -> None:
    wire = b': ping\n\ndata: {"a": "[DONE]"}\n\ndata: {"b":\ndata: 2}\r\n\r\ndata: [DONE]\n\n'

    async def scenario() -> None:
        for step, end in ((1, len(wire)), (7, len(wire)), (10**6, len(wire)), (1, len(wire) - 9), (7, 20)):

            async def pieces(request: web.Request, step: int = step, end: int = end) -> web.StreamResponse:
                response = web.StreamResponse(headers={"content-type": "text/event-stream"})
                await response.prepare(request)
                for at in range(0, end, step):
                    await response.write(wire[at : min(end, at + step)])
                return response

            async with router(tmp_path, pieces) as setup:
                reply = await setup.client.post(INSIDE, json={**ASK, "stream": True}, headers=INTERNAL)
                if end == len(wire):
                    assert reply.content == wire
                else:
                    whole_lines = wire[:end].rpartition(b"\n")[0]
                    assert reply.content.startswith(whole_lines + b"\n\n")
                    assert ending(reply.text) == ("bad_gateway", "[DONE]")

    run(scenario)


@pytest.mark.parametrize("behaviour", [html, nonsense, cut, early, refuse])
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
