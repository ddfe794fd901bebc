"""How many requests are under way, how many wait, how long; and how long a request may take."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from router_double import ASK, fine, router, run

from leanmodel_api.router import RouterLimits
from leanmodel_serving.router.gate import Gate


def test_what_is_over_the_bound_waits_its_turn_and_the_queue_has_an_end(tmp_path: Path) -> None:
    let_go, order = asyncio.Event(), []

    async def slow(request: web.Request) -> web.StreamResponse:
        order.append((await request.json())["prompt"])
        await let_go.wait()
        return await fine(request)

    async def scenario() -> None:
        async with router(tmp_path, slow, concurrency=2, queue=3) as setup:
            tasks = []
            for number in range(6):
                body = {**ASK, "prompt": str(number)}
                tasks.append(asyncio.ensure_future(setup.client.post("/v1/completions", json=body)))
                while setup.app.gate.active + setup.app.gate.waiting < min(number + 1, 5):
                    await asyncio.sleep(0.01)
            reply = await tasks[5]
            assert reply.status_code == 429 and reply.json()["error"]["code"] == "queue_full"
            assert int(reply.headers["retry-after"]) >= 1
            let_go.set()
            assert [(await one).status_code for one in tasks[:5]] == [200] * 5
            assert order == ["0", "1", "2", "3", "4"]
            assert (setup.app.gate.active, setup.app.gate.waiting) == (0, 0)

    run(scenario)


def test_who_waits_too_long_is_sent_away_and_who_leaves_makes_room(tmp_path: Path) -> None:
    let_go = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return await fine(request)

    async def scenario() -> None:
        async with router(tmp_path, slow, concurrency=1, queue_timeout=0.2) as setup:
            first = asyncio.ensure_future(setup.client.post("/v1/completions", json=ASK))
            while not setup.app.gate.active:
                await asyncio.sleep(0.01)
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert reply.status_code == 429 and reply.json()["error"]["code"] == "queue_timeout"
            let_go.set()
            assert (await first).status_code == 200
            assert (await setup.client.post("/v1/completions", json=ASK)).status_code == 200

    run(scenario)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.one_of(st.none(), st.integers(1, 3))),
        st.tuples(st.sampled_from(["leave", "give-up"]), st.integers(0, 20)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(steps)
def test_never_more_than_the_bound_and_nobody_is_forgotten(found: list[tuple[str, Any]]) -> None:
    async def scenario() -> None:
        gate, bound = Gate(), None
        doors: dict[asyncio.Task[None], asyncio.Event] = {}
        inside: set[int] = set()

        async def visit(number: int, limits: RouterLimits, door: asyncio.Event) -> None:
            async with gate.place(limits):
                inside.add(number)
                try:
                    await door.wait()
                finally:
                    inside.discard(number)

        for number, (what, value) in enumerate(found):
            if what == "come":
                before, bound = len(inside), value
                door = asyncio.Event()
                limits = RouterLimits(concurrency=value, queue=100)
                doors[asyncio.ensure_future(visit(number, limits, door))] = door
                for _ in range(5):
                    await asyncio.sleep(0)
                assert value is None or len(inside) <= max(value, before)
            elif doors:
                task = list(doors)[value % len(doors)]
                door = doors.pop(task)
                door.set() if what == "leave" else task.cancel()
                for _ in range(4):
                    await asyncio.sleep(0)
            assert gate.active == len(inside)
            # A place that is free is given to whoever waits.
            assert not gate.waiting or (bound is not None and len(inside) >= bound)
        for door in doors.values():
            door.set()
        await asyncio.gather(*doors, return_exceptions=True)
        assert (gate.active, gate.waiting) == (0, 0)

    asyncio.run(scenario())


def test_an_answer_that_takes_too_long_is_an_error_and_a_stream_ends_with_one(tmp_path: Path) -> None:
    async def stuck(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        if body.get("stream"):
            await response.prepare(request)
            await response.write(b'data: {"choices": [{"index": 0, "text": "half"}]}\n\n')
        await asyncio.Event().wait()
        return response

    async def scenario() -> None:
        async with router(tmp_path, stuck, request_timeout=0.3) as setup:
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert reply.status_code == 504 and reply.json()["error"]["code"] == "request_timeout"
            await asyncio.wait_for(setup.hung_up.wait(), 5)
            reply = await setup.client.post("/v1/completions", json={**ASK, "stream": True})
            events = reply.text.strip().split("\n\n")
            assert "half" in events[0] and events[-1] == "data: [DONE]"
            assert json.loads(events[1].removeprefix("data: "))["error"]["code"] == "request_timeout"
            assert setup.statuses() == [("none", "504"), ("none", "504")]

    run(scenario)


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, fine, body_timeout=0.2) as setup:
            sent: list[dict[str, Any]] = []

            async def receive() -> dict[str, Any]:
                await asyncio.Event().wait()
                return {}

            async def send(message: dict[str, Any]) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
            await setup.app(scope, receive, send)
            assert sent[0]["status"] == 408 and b"body_timeout" in sent[1]["body"]

    run(scenario)
