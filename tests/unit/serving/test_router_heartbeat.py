"""Streams that are long in coming are kept alive by comments: what that commits to, and what stays open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from openai._streaming import SSEDecoder
from router_double import ASK, Setup, cut, fine, refuse, router, run
from test_router_hold_back import HELD, STREAM, Lean, rules

from leanmodel_api.router import Backend, RouterLimits, RouterSettings
from leanmodel_serving.router.openapi import document

BEAT_S = 0.03
WAIT_S = 20


class Talk:
    """One request as a server sees it: all messages in order, and a way to wait for the next beat."""

    def __init__(self, setup: Setup, body: dict[str, Any]) -> None:
        self.sent: list[Any] = []
        self.beats, self._beat = 0, asyncio.Event()
        given = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])

        async def receive() -> Any:
            found = next(given, None)
            return found if found else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            self.sent.append(message)
            if message.get("body") == b": waiting\n\n":
                self.beats += 1
                self._beat.set()

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "headers": [],
            "query_string": b"",
        }
        self.task = asyncio.ensure_future(setup.app(scope, receive, send))

    async def beaten(self, times: int = 2) -> None:
        while self.beats < times:
            self._beat.clear()
            await asyncio.wait_for(self._beat.wait(), WAIT_S)

    async def end(self) -> None:
        await asyncio.wait_for(self.task, WAIT_S)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def lines(self) -> list[str]:
        return b"".join(message.get("body", b"") for message in self.sent[1:]).decode().split("\n")

    @property
    def said(self) -> dict[str, str]:
        """What the comments say that is no beat."""
        found = [
            line[2:].split(": ", 1)
            for line in self.lines
            if line.startswith(": x-") or line.startswith(": retry")
        ]
        return {name: value for name, value in found}

    @property
    def events(self) -> list[str]:
        """The data of the events, by the decoder of OpenAI's own client."""
        decoder = SSEDecoder()
        return [found.data for found in map(decoder.decode, self.lines) if found is not None]


def waiting(then: Callable[[web.Request], Awaitable[web.StreamResponse]], go_on: asyncio.Event) -> Any:
    async def engine(request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return await then(request)

    return engine


def test_a_stream_is_kept_alive_and_says_in_comments_who_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()
        async with router(tmp_path, waiting(fine, go_on), heartbeat=BEAT_S) as setup:
            talk = Talk(setup, {**ASK, "stream": True, "stream_options": {"include_usage": True}})
            await talk.beaten()
            assert (talk.status, talk.headers["x-leanmodel-route"]) == (200, "undecided")
            assert talk.headers["content-type"].startswith("text/event-stream") and talk.events == []
            go_on.set()
            await talk.end()
            assert talk.said["x-leanmodel-route"] == "large" and talk.said["x-leanmodel-revision"] == "large"
            assert {"x-leanmodel-reason", "x-leanmodel-certificate"} <= set(talk.said)
            assert talk.said["x-leanmodel-request-id"] == talk.headers["x-leanmodel-request-id"]
            assert [json.loads(data)["model"] for data in talk.events[:-1]] == ["large", "large"]
            assert talk.events[-1] == "[DONE]" and talk.sent[-1]["more_body"] is False
            # Once an answer is out, nothing waits any more.
            first = next(index for index, line in enumerate(talk.lines) if line.startswith("data:"))
            assert ": waiting" not in talk.lines[first:] and setup.statuses() == [("large", "200")]

    run(scenario)


def test_a_held_back_answer_may_still_be_thrown_away_after_a_beat(tmp_path: Path) -> None:
    async def scenario() -> None:
        lean = Lean(-5.0, 20, wait_after=HELD - 1)
        async with router(tmp_path, fine, lean, rules=rules(), heartbeat=BEAT_S) as setup:
            talk = Talk(setup, STREAM)
            await talk.beaten()
            lean.go_on.set()
            await talk.end()
            assert talk.said["x-leanmodel-route"] == "escalated" and "x-leanmodel-confidence" in talk.said
            assert {json.loads(data)["model"] for data in talk.events[:-1]} == {"large"}

    run(scenario)


def test_a_second_try_is_still_possible_after_a_beat(tmp_path: Path) -> None:
    async def scenario() -> None:
        go_on, tries = asyncio.Event(), iter([cut_before, fine])

        async def engine(request: web.Request) -> web.StreamResponse:
            await go_on.wait()
            return await next(tries)(request)

        async with router(tmp_path, engine, heartbeat=BEAT_S) as setup:
            talk = Talk(setup, {**ASK, "stream": True})
            await talk.beaten()
            go_on.set()
            await talk.end()
            assert talk.said["x-leanmodel-route"] == "large" and talk.events[-1] == "[DONE]"
            retries = [labels["result"] for _, labels in setup.meters["leanmodel_retries"].calls]
            assert retries == ["answered"] and setup.statuses() == [("large", "200")]

    run(scenario)


async def cut_before(request: web.Request) -> web.StreamResponse:
    """Begin a stream, and hang up before its first event."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b": hello\n\n")
    assert request.transport is not None
    request.transport.abort()
    return response


def test_an_error_after_a_beat_is_an_event_and_counts_as_what_it_is(tmp_path: Path) -> None:
    async def pretty(request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=400, text='{\n "error": {"message": "too\\nlong"}\n}', content_type="application/json"
        )

    async def scenario(engine: Any, status: str, words: str) -> None:
        go_on = asyncio.Event()
        async with router(tmp_path, waiting(engine, go_on), heartbeat=BEAT_S) as setup:
            talk = Talk(setup, {**ASK, "stream": True})
            await talk.beaten()
            go_on.set()
            await talk.end()
            error, done = talk.events
            assert json.loads(error)["error"]["message"].startswith(words) and done == "[DONE]"
            assert talk.status == 200 and setup.statuses() == [("none", status)]
            assert talk.sent[-1]["more_body"] is False
            assert len([message for message in talk.sent if message["type"] == "http.response.start"]) == 1

    run(lambda: scenario(refuse, "400", "too long"))
    run(lambda: scenario(pretty, "400", "too\nlong"))
    run(lambda: scenario(cut_before, "502", "the engine of large"))


def test_a_stream_that_breaks_off_after_a_beat_ends_with_an_error_event(tmp_path: Path) -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()
        async with router(tmp_path, waiting(cut, go_on), heartbeat=BEAT_S) as setup:
            talk = Talk(setup, {**ASK, "stream": True})
            await talk.beaten()
            go_on.set()
            await talk.end()
            half, error, done = talk.events
            assert json.loads(half)["choices"][0]["text"] == "half" and "error" in json.loads(error)
            assert done == "[DONE]"

    run(scenario)


def test_a_request_that_takes_too_long_is_told_so_in_an_event(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(
            tmp_path, waiting(fine, asyncio.Event()), heartbeat=BEAT_S, request_timeout=0.3
        ) as setup:
            talk = Talk(setup, {**ASK, "stream": True})
            await talk.end()
            error, done = talk.events
            assert json.loads(error)["error"]["code"] == "request_timeout" and done == "[DONE]"
            assert talk.beats >= 2 and setup.statuses() == [("none", "504")]

    run(scenario)


def test_an_early_refusal_and_whole_answers_keep_their_own_status_and_headers(tmp_path: Path) -> None:
    """What is refused before the first beat has its status; what is not streamed has no beat at all."""

    async def scenario() -> None:
        go_on = asyncio.Event()
        async with router(tmp_path, waiting(fine, go_on), heartbeat=BEAT_S) as setup:
            wrong = Talk(setup, {**ASK, "stream": True, "n": "two"})
            await wrong.end()
            assert wrong.status == 400 and wrong.headers["content-type"] == "application/json"
            stream, whole = Talk(setup, {**ASK, "stream": True}), Talk(setup, ASK)
            await stream.beaten()
            assert whole.sent == []
            go_on.set()
            await whole.end()
            await stream.end()
            assert whole.status == 200 and whole.headers["x-leanmodel-route"] == "large"

    run(scenario)


def test_the_document_says_that_a_route_may_be_undecided() -> None:
    large = Backend(revision="large", url="http://127.0.0.1:1/large")
    for beat in (None, 15.0):
        settings = RouterSettings(model="m", large=large, limits=RouterLimits(heartbeat=beat))
        said = document(settings)["paths"]["/v1/completions"]["post"]["responses"]["200"]["headers"]
        assert ("undecided" in said["x-leanmodel-route"]["schema"]["enum"]) is (beat is not None)
        assert said["x-leanmodel-revision"]["required"] is (beat is None)
        assert said["x-leanmodel-request-id"]["required"]
