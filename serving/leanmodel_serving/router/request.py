"""One request under way: what it needs, and how it asks an engine."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from leanmodel_api.router import Backend

from ..metrics import Meters
from .account import Account
from .ask import PATHS, Ask
from .bound import broken_off
from .breaker import Breakers, RetryBudget
from .conversations import ALONE, Conversation
from .cost import Pace
from .errors import EXTERNAL
from .logprobs import widen
from .outside import Door
from .overrides import NO_WISHES, Wishes
from .receipt import Caller, Receipt
from .relief import Relief
from .route import choose
from .snapshot import Snapshot
from .till import Till
from .upstream import Upstream
from .watcher import Watcher
from .wire import Reply, Stream


@dataclass
class Shared:
    """What all requests of a router share; ``door`` is the only way outside."""

    upstream: Upstream
    meters: Meters
    pace: Pace
    breakers: Breakers
    watcher: Watcher
    door: Door
    retries: RetryBudget
    till: Till
    relief: Relief


class Request:
    """A request with all that it needs on its way."""

    def __init__(
        self,
        shared: Shared,
        state: Snapshot,
        ask: Ask,
        request_id: str,
        started: float,
        wishes: Wishes = NO_WISHES,
        conversation: Conversation = ALONE,
        group: str = "",
    ) -> None:
        """Begin.

        Args:
            shared: the router's parts.
            state: settings for the whole of this request.
            ask: what is wanted.
            request_id: name in headers and logs.
            started: ``time.perf_counter()`` when the request came.
            wishes: what its headers ask for.
            conversation: which one it belongs to.
            group: kind of request that it says it is.

        Raises:
            ApiError: its headers ask for what cannot be.
        """
        self.shared, self.state, self.ask, self.conversation = shared, state, ask, conversation
        self.wishes = wishes
        watcher = shared.watcher
        self.route = choose(
            state,
            ask,
            wishes,
            pinned=watcher.pins.holds(conversation),
            alarms=watcher.alarms,
            group=group,
            pressure=shared.relief.cause,
        )
        self.account = Account(state, shared.meters, shared.pace, request_id, started)
        self.receipt, self.size = Receipt(), 0
        if self.route.score is not None and self.route.score >= 0:
            self.account.confidence = self.route.score

    async def admit(self, caller: Caller, size: int) -> None:
        """Reserve the money for it, which may leave it to the lean model alone.

        Args:
            caller: who asks.
            size: bytes of its body.

        Raises:
            ApiError: there is none, or its key has no right to it now.
        """
        self.size, self.account.tenant = size, caller.tenant
        self.route, self.receipt = await self.shared.till.open(self.state, caller, self.ask, size, self.route)

    async def settle(self) -> None:
        """Count the money of an answered request; the ledger has it before the answer ends."""
        self.account.settle(self.route)
        await self.receipt.settle(self.account.bill().cost, self.account.tokens())

    def end(self, events: int) -> None:
        """Count what a request did cost that was not settled: it failed, or its client went away.

        Args:
            events: events of a stream that were sent.
        """
        account = self.account
        large, cost = account.name in ("large", "escalated"), account.bill().cost
        # What a provider did not finish is in the bill already.
        unfinished = account.name != EXTERNAL and (account.large if large else account.lean) is None
        if unfinished:
            seconds = time.perf_counter() - account.started
            cost += broken_off(self.state.large if large else self.state.lean, self.size, events, seconds)
        self.receipt.drop(cost, account.tokens() or events)

    def headers(self, revision: str, with_cost: bool) -> dict[str, str]:
        """Return what an answer says of itself."""
        return {**self.account.headers(revision, self.route, with_cost), **self.receipt.headers()}

    def body(self, model: str) -> dict[str, Any]:
        """Return the body to ask a model with: sampling parameters filled in, usage asked for."""
        body = {**self.ask.body, **self.route.fill, "model": model}
        if self.ask.stream:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return body

    def _lean_body(self, lean: Backend, judge: bool) -> dict[str, Any]:
        body = self.body(lean.revision)
        decider = self.state.by(self.route.pressure)
        if judge and decider is not None and decider.needs_logprobs:
            widen(self.ask, body, decider.top_logprobs)
        if self.ask.stream and self._hold_back(judge) is not None:
            # What is thrown away at the prefix never comes to its last chunk, and its tokens cost money all the same.
            body["stream_options"] = {**body["stream_options"], "continuous_usage_stats": True}
        return body

    def _hold_back(self, judge: bool) -> int | None:
        """Return how many tokens of the lean answer the decision reads; None: all of them, or none."""
        decider = self.state.by(self.route.pressure)
        return decider.hold_back if judge and decider is not None else None

    async def ask_backend(self, backend: Backend, body: dict[str, Any]) -> Reply:
        """Ask an engine for a whole answer."""
        path, limits = PATHS[self.ask.endpoint], self.state.settings.limits
        return await self.shared.upstream.ask(backend, path, body, self.account.request_id, limits)

    def open_backend(
        self, backend: Backend, body: dict[str, Any]
    ) -> AbstractAsyncContextManager[Stream | Reply]:
        """Ask an engine for a stream."""
        path, limits = PATHS[self.ask.endpoint], self.state.settings.limits
        return self.shared.upstream.stream(backend, path, body, self.account.request_id, limits)
