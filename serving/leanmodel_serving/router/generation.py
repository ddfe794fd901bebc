"""One request for a generation, from its route to its bill.

The ways: the large model at once; the lean one without a question; or the lean one first, its whole answer held
back until its log-probs are judged, then either released or thrown away for the large model's. Nothing of an
answer reaches the client before it is decided whose it is, and nothing is changed after.
"""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from leanmodel_api.router import Backend

from ..metrics import Meters
from .ask import PATHS, Ask
from .breaker import Breaker
from .cost import Bill, Pace, Tariff, Usage, bill, usd
from .errors import ApiError, engine_broken, error_body
from .http import EVENTS, Answer
from .logprobs import Reading, narrow, widen
from .route import Route, choose, scope_kind
from .snapshot import Snapshot
from .sse import DONE, event
from .upstream import Reply, Stream, Upstream, refusal

_USAGE_MARK = b'"usage"'


@dataclass
class Shared:
    """What all requests of a router share."""

    upstream: Upstream
    meters: Meters
    pace: Pace
    breaker: Breaker


@dataclass
class _Work:
    """What one model did for a request."""

    tariff: Tariff
    usage: Usage
    seconds: float


class Generation:
    """One request under way."""

    def __init__(self, shared: Shared, state: Snapshot, ask: Ask, request_id: str, started: float) -> None:
        """Begin.

        Args:
            shared: the router's parts.
            state: settings for the whole of this request.
            ask: what is wanted.
            request_id: name in headers and logs.
            started: ``time.perf_counter()`` when the request came.
        """
        self.shared, self.state, self.ask, self.request_id, self.started = (
            shared,
            state,
            ask,
            request_id,
            started,
        )
        self.route = choose(state, ask)
        self.name = "none"  # the route as it turned out: lean, large or escalated
        self.confidence: float | None = None
        self.lean: _Work | None = None
        self.large: _Work | None = None
        self.escalated_for = ""

    # ---------------------------------------------------------------- the ways

    async def run(self, answer: Answer) -> None:
        """Answer the request.

        Raises:
            ApiError: nothing was sent yet, and this is what to say.
        """
        settings, way = self.state.settings, self.route.way
        if way != "large" and not self.shared.breaker.allows():
            self.shared.meters.count("leanmodel_lean_skipped")
            self.route = Route("large", scope="lean engine is failing")
            way = "large"
        if way != "large" and settings.lean is not None:
            if self.ask.stream:
                done = await self._lean_stream(answer, settings.lean, judge=way == "try")
            else:
                done = await self._lean_whole(answer, settings.lean, judge=way == "try")
            if done:
                return
        self.name = "escalated" if self.escalated_for else "large"
        if self.ask.stream:
            await self._large_stream(answer, settings.large)
        else:
            await self._large_whole(answer, settings.large)

    async def _lean_whole(self, answer: Answer, lean: Backend, judge: bool) -> bool:
        """Ask the lean model; send its answer and return True, or return False for the large one to answer."""
        body = self._body(lean)
        if judge and self.state.decider is not None and self.state.decider.needs_logprobs:
            widen(self.ask, body, self.state.decider.top_logprobs)
        try:
            reply = await self._ask(lean, body)
        except ApiError:
            return self._lean_failed()
        if not reply.ok or reply.content is None:
            return self._lean_failed(engine_fault=reply.status >= 500)
        self.shared.breaker.saw(ok=True)
        self.lean = self._work(lean, Usage.of(reply.content.get("usage")), reply.seconds)
        if judge:
            reading = Reading(self.ask.endpoint)
            reading.take(reply.content)
            if not self._accepts(reading):
                return False
        narrow(self.ask, reply.content)
        self.name = "lean"
        self._settle()
        await answer.whole(200, to_json(reply.content), self._headers(lean, with_cost=True))
        return True

    async def _lean_stream(self, answer: Answer, lean: Backend, judge: bool) -> bool:
        """As :meth:`_lean_whole`, for a stream: its chunks are held back until it is judged."""
        body = self._body(lean)
        if judge and self.state.decider is not None and self.state.decider.needs_logprobs:
            widen(self.ask, body, self.state.decider.top_logprobs)
        held: list[dict[str, Any]] = []
        reading = Reading(self.ask.endpoint)
        first = last = 0.0
        begun = time.perf_counter()
        try:
            async with self._open(lean, body) as stream:
                if isinstance(stream, Reply):
                    return self._lean_failed(engine_fault=stream.status >= 500)
                complete = False
                async for data in stream.events():
                    if data == DONE:
                        complete = True
                        break
                    chunk = from_json(data)
                    if "error" in chunk:
                        return self._lean_failed()
                    last = time.perf_counter()
                    first = first or last
                    reading.take(chunk)
                    held.append(chunk)
        except (ApiError, ValueError):
            return self._lean_failed()
        if not complete:
            return self._lean_failed()
        self.shared.breaker.saw(ok=True)
        usage = next((Usage.of(chunk["usage"]) for chunk in reversed(held) if chunk.get("usage")), Usage())
        self.lean = self._work(lean, usage, time.perf_counter() - begun)
        if judge and not self._accepts(reading):
            return False
        self.name = "lean"
        self._settle()
        await answer.start(200, EVENTS, self._headers(lean, with_cost=True))
        self._first_token()
        for chunk in held:
            narrow(self.ask, chunk)
            if not (chunk.get("usage") and not chunk.get("choices")):
                await answer.write(event(to_json(chunk)))
            elif self.ask.usage_wanted:
                await answer.write(event(self._with_cost(chunk)))
        self._per_token(first, last, usage)
        await answer.write(event(DONE))
        await answer.end()
        return True

    async def _large_whole(self, answer: Answer, large: Backend) -> None:
        reply = await self._ask(large, self._body(large))
        if not reply.ok or reply.content is None:
            await self._refuse(answer, large, reply)
            return
        self._large_worked(large, Usage.of(reply.content.get("usage")), reply.seconds)
        self._settle()
        await answer.whole(200, reply.body, self._headers(large, with_cost=True))

    async def _large_stream(self, answer: Answer, large: Backend) -> None:
        async with self._open(large, self._body(large)) as stream:
            if isinstance(stream, Reply):
                await self._refuse(answer, large, stream)
                return
            usage = Usage()
            first = last = 0.0
            complete = False
            try:
                async for data in stream.events():
                    last = time.perf_counter()
                    if not answer.begun:
                        await answer.start(200, EVENTS, self._headers(large, with_cost=False))
                        first = last
                        self._first_token()
                    if data == DONE:
                        complete = True
                        break
                    final = _usage_of(data) if _USAGE_MARK in data else None
                    if final is None:
                        await answer.write(event(data))
                        continue
                    usage = Usage.of(final["usage"])
                    self._large_worked(large, usage, last - stream.started)
                    if self.ask.usage_wanted:
                        await answer.write(event(self._with_cost(final)))
            except ApiError as error:
                if not answer.begun:
                    raise
                await answer.write(event(error_body(error.message, error.kind, error.code)))
            if not answer.begun:
                raise engine_broken(large.revision, "an empty stream")
            if self.large is None:
                self._large_worked(large, usage, last - stream.started)
            if not complete:
                answer.status = 502  # for the metrics: the client saw a 200, and then an error event
            self._settle()
            self._per_token(first, last, usage)
            await answer.write(event(DONE))
            await answer.end()

    # ---------------------------------------------------------------- deciding

    def _accepts(self, reading: Reading) -> bool:
        """Judge the lean answer by the policy."""
        decider = self.state.decider
        if decider is None:
            return True
        confidence = 0.0
        if reading.complete:
            confidence = decider.confidence(
                reading.tokens, reading.top, reading.answer, reading.finish_reason, prompt=self.ask.text()
            )
        self.confidence = confidence
        accepted = decider.accept(confidence)
        self.shared.meters.observe(
            "leanmodel_confidence", confidence, decision="accepted" if accepted else "escalated"
        )
        if not accepted:
            self.escalated_for = "confidence"
        return accepted

    def _lean_failed(self, engine_fault: bool = True) -> bool:
        """The large model shall answer; a refusal that is the request's own fault is not held against the engine."""
        if engine_fault:
            self.shared.breaker.saw(ok=False)
        self.escalated_for = "lean_failed"
        return False

    # ---------------------------------------------------------------- asking

    def _body(self, backend: Backend) -> dict[str, Any]:
        body = {**self.ask.body, **self.route.fill, "model": backend.revision}
        if self.ask.stream:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return body

    async def _ask(self, backend: Backend, body: dict[str, Any]) -> Reply:
        path, limits = PATHS[self.ask.endpoint], self.state.settings.limits
        return await self.shared.upstream.ask(backend, path, body, self.request_id, limits)

    def _open(self, backend: Backend, body: dict[str, Any]) -> AbstractAsyncContextManager[Stream | Reply]:
        path, limits = PATHS[self.ask.endpoint], self.state.settings.limits
        return self.shared.upstream.stream(backend, path, body, self.request_id, limits)

    async def _refuse(self, answer: Answer, backend: Backend, reply: Reply) -> None:
        """Pass a refusal on, as it is where it is the engine's own word."""
        error = refusal(backend, reply)
        if error is not None:
            raise error
        self.name = "none"
        extra = {"retry-after": "1"} if reply.status in (429, 503) else {}
        await answer.whole(reply.status, reply.body, {**self._headers(backend, with_cost=False), **extra})

    # ---------------------------------------------------------------- counting

    def _work(self, backend: Backend, usage: Usage, seconds: float) -> _Work:
        meters, role = self.shared.meters, "lean" if backend is self.state.settings.lean else "large"
        for kind, tokens in (("input", usage.prompt), ("output", usage.completion)):
            labels = {"gen_ai_token_type": kind, "role": role, "revision": backend.revision}
            meters.observe("gen_ai_client_token_usage", float(tokens), **labels)
            meters.count("leanmodel_tokens", float(tokens), **labels)
        return _Work(self.state.tariff(backend), usage, seconds)

    def _large_worked(self, large: Backend, usage: Usage, seconds: float) -> None:
        self.large = self._work(large, usage, seconds)
        self.shared.pace.saw(usage, seconds)

    def _bill(self) -> Bill:
        lean = None if self.lean is None else (self.lean.tariff, self.lean.usage, self.lean.seconds)
        large = None if self.large is None else (self.large.tariff, self.large.usage, self.large.seconds)
        return bill(lean, large, self.state.large, self.shared.pace)

    def _settle(self) -> None:
        """Count the money and the way of an answered request."""
        meters, found = self.shared.meters, self._bill()
        if found.known:
            labels = {"route": self.name, "basis": found.basis}
            meters.count("leanmodel_cost_usd", found.cost / 1e9, **labels)
            meters.count("leanmodel_counterfactual_cost_usd", found.counterfactual / 1e9, **labels)
            meters.save(self.name, found.basis, found.counterfactual - found.cost)
        if self.escalated_for:
            meters.count("leanmodel_escalations", reason=self.escalated_for)
        if self.route.scope:
            meters.count("leanmodel_out_of_scope", kind=scope_kind(self.route.scope))

    def _first_token(self) -> None:
        elapsed = time.perf_counter() - self.started
        self.shared.meters.observe("gen_ai_server_time_to_first_token_seconds", elapsed, route=self.name)

    def _per_token(self, first: float, last: float, usage: Usage) -> None:
        if usage.completion > 1 and last > first:
            value = (last - first) / (usage.completion - 1)
            self.shared.meters.observe("gen_ai_server_time_per_output_token_seconds", value, route=self.name)

    def _with_cost(self, chunk: dict[str, Any]) -> bytes:
        found = self._bill()
        if found.known:
            extra = {"cost_usd": usd(found.cost), "cost_basis": found.basis, "route": self.name}
            chunk = {**chunk, "usage": {**chunk["usage"], **extra}}
        return to_json(chunk)

    def _headers(self, backend: Backend, with_cost: bool) -> dict[str, str]:
        headers = {
            "x-leanmodel-route": self.name,
            "x-leanmodel-revision": backend.revision,
            "x-leanmodel-request-id": self.request_id,
        }
        if self.state.policy:
            headers["x-leanmodel-policy"] = self.state.policy
        if self.confidence is not None:
            headers["x-leanmodel-confidence"] = f"{self.confidence:.6f}"
        if self.route.scope:
            headers["x-leanmodel-scope"] = self.route.scope[:200]
        if self.route.fill:
            headers["x-leanmodel-sampling"] = ",".join(
                f"{name}={value:g}" for name, value in self.route.fill.items()
            )
        found = self._bill() if with_cost else Bill("none")
        if found.known:
            headers["x-leanmodel-cost-usd"] = usd(found.cost)
            headers["x-leanmodel-cost-basis"] = found.basis
        return headers


def _usage_of(data: bytes) -> dict[str, Any] | None:
    """Return the chunk that carries nothing but the usage, else None."""
    chunk = from_json(data)
    return chunk if isinstance(chunk, dict) and chunk.get("usage") and not chunk.get("choices") else None
