"""The running operator: leads, watches, works, and ends when it no longer leads."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from . import handlers
from .api import Api, NotLeaderError
from .apply import KindMissingError, TakenError, apply
from .compare import writes
from .gather import Gatherer
from .health import Health
from .lease import Leader
from .metrics import Metrics
from .mirror import Mirror, Name
from .observe import observe, prime
from .observed import Key
from .plan import plan
from .queue import RetryError, WorkQueue
from .settings import Settings
from .sweeper import Sweeper

_FIRST_RESYNC_SECONDS = 20.0
_LISTED_SECONDS = 1.0
_LEAST_RESYNC_SECONDS = 5.0
"""After kopf has listed, so long for the rest of its lists; and so long at least between two lists of our own."""
_LOOK_SECONDS = 1.0
_TAKEN_SECONDS = 30.0
"""How long a name that somebody else has is left alone."""
_END_SECONDS = 3.0
"""How long parts that were told to end are waited for; no write of theirs goes out once the Lease is gone."""
log = logging.getLogger(__name__)


class Controller:
    """All parts together."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings; nothing is reached yet."""
        self.settings = settings
        self.metrics = Metrics()
        self.mirror = Mirror()
        self.queue = WorkQueue(self._turn, observe=self.metrics.turned)
        self.health = Health(self._unhealthy, self._unready, self._render)
        self._api: Api | None = None
        self._gatherer: Gatherer | None = None
        self._leader: Leader | None = None
        self._state = "starting"
        self._taken: dict[tuple[Name, Key], float] = {}
        self._stop = asyncio.Event()
        self._listed = asyncio.Event()

    async def run(self) -> int:
        """Run until told to end (0) or until it has to (1); the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._api = await Api.connect(self.settings.api_timeout_seconds, self.metrics.called)
        identity = self.settings.identity or f"{socket.gethostname()}-{os.getpid()}"
        self._leader = Leader(self._api, self.settings, identity)
        self._api.may_write = self._leader.held
        self._gatherer = Gatherer(self._api, self.settings, self.queue.add)
        await self.health.start(self.settings.http_host, self.settings.http_port)
        log.info("listening on port %d", self.health.port)
        try:
            self._state = "standby"
            if await self._first(self._leader.acquire(), self._stop.wait()) == 1:
                return 0
            return await self._lead(self._leader)
        finally:
            await self._gatherer.close()
            await self.health.close()
            await self._api.close()

    async def _lead(self, leader: Leader) -> int:
        self.metrics.leader.set(1)
        parts: list[Coroutine[Any, Any, Any]] = [
            self._stop.wait(),
            leader.keep(),
            self._look_after(),
        ]
        ended = await self._first(*parts)
        self.metrics.leader.set(0)
        self._state = "ending"
        if ended == 1:
            return 1
        await leader.release()
        return 0

    async def _look_after(self) -> None:
        """List, then watch and work: a turn never sees a mirror that is not full yet."""
        assert self._api is not None and self._gatherer is not None
        self._gatherer.kuberay = await self._primed()
        self._state = "leading"
        parts = [self.queue.work() for _ in range(self.settings.workers)]
        sweeper = Sweeper(self._api, self.mirror, self.settings)
        await self._first(self._watch(), self._resync(), sweeper.run(), *parts)

    async def _watch(self) -> None:
        """Watch for ever, and begin anew when KubeRay's kinds have come or gone: kopf follows what it found at first."""
        assert self._gatherer is not None
        while True:
            known = self._gatherer.kuberay
            followed = asyncio.ensure_future(
                handlers.watch(self.mirror, self.queue.add, self._listed.set, self.settings.namespaces)
            )
            try:
                while not followed.done() and self._gatherer.kuberay == known:
                    await asyncio.wait([followed], timeout=_LOOK_SECONDS)
                if followed.done():
                    followed.result()
                    log.warning("kopf has ended by itself: watching anew")
                else:
                    log.info("KubeRay's kinds have %s: watching anew", "gone" if known else "come")
            except handlers.KindGoneError as error:
                log.warning("a kind that was watched is gone: %s", error)
            finally:
                followed.cancel()
                await asyncio.wait([followed], timeout=_END_SECONDS)
            self._gatherer.kuberay = await self._primed()

    async def _primed(self) -> bool:
        """List everything, as often as it takes."""
        assert self._api is not None
        wait = 0.5
        while True:
            try:
                kuberay = await prime(self._api, self.mirror, self.settings.namespaces)
            except Exception as error:
                log.warning("cannot list yet: %s", error)
                await asyncio.sleep(wait * (0.5 + random.random() / 2))
                wait = min(wait * 2, 30.0)
                continue
            for name in self.mirror.names():
                self.queue.add(name)
            return kuberay

    async def _resync(self) -> None:
        """List everything again from time to time, and whenever kopf had to: an event may have been lost.

        The first time soon: what was deleted between our first list and kopf's shows in no event, and where nothing
        is left of a kind, kopf's list brings none either.
        """
        assert self._gatherer is not None
        wait = min(_FIRST_RESYNC_SECONDS, self.settings.resync_seconds)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._listed.wait(), wait)
                await asyncio.sleep(_LISTED_SECONDS)
            self._listed.clear()
            self._gatherer.kuberay = await self._primed()
            wait = self.settings.resync_seconds * (0.9 + 0.2 * random.random())
            await asyncio.sleep(min(_LEAST_RESYNC_SECONDS, wait))

    async def _turn(self, name: Name) -> float | None:
        """Do one turn of the loop for one LeanModel."""
        assert self._api is not None and self._gatherer is not None
        found = await observe(self._api, self.mirror, self._gatherer, name)
        self.metrics.conditions.saw(name, found[0].get("status", {}) if found else None)
        if found is None:
            return None
        body, seen = found
        seen = replace(seen, facts=replace(seen.facts, taken=self._taken_names(name)))
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        decided = plan(body, seen, self.settings, now)
        todo = writes(decided, body, seen)
        try:
            await apply(self._api, self.mirror, name, body, todo, decided.events)
        except KindMissingError:  # KubeRay's definitions are gone: the status has to say so
            self._gatherer.kuberay = False
            return 0.0
        except TakenError as error:  # the next turn says it in the status, and later ones try again
            self._taken[name, error.key] = time.monotonic()
            raise RetryError(0.0, str(error)) from error
        except NotLeaderError as error:  # this process is about to end
            raise RetryError(1.0, str(error)) from error
        return 0.0 if todo else decided.requeue_after

    def _taken_names(self, name: Name) -> frozenset[Key]:
        """Return which names were found taken a short while ago."""
        now = time.monotonic()
        self._taken = {key: at for key, at in self._taken.items() if now - at < _TAKEN_SECONDS}
        return frozenset(key for of, key in self._taken if of == name)

    async def _first(self, *parts: Coroutine[Any, Any, Any]) -> int:
        """Run parts until one ends; return its place. An error of it ends all."""
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:  # when this itself is told to end, too
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks, timeout=_END_SECONDS)
        for task in done:
            error = task.exception() if not task.cancelled() else None
            if error is not None:
                raise error
        return min(tasks.index(task) for task in done)

    def _unhealthy(self) -> str:
        return ""

    def _unready(self) -> str:
        return "" if self._state in ("standby", "leading") else self._state

    def _render(self) -> bytes:
        self.metrics.depth.set(self.queue.depth())
        return self.metrics.render()
