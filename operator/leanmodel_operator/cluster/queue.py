"""The work queue: each name is worked on by one worker at a time, once for however many events it got meanwhile."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .mirror import Name

Handle = Callable[[Name], Awaitable[float | None]]
"""Does one turn; returns seconds after which to look again, or None."""
log = logging.getLogger(__name__)


class RetryError(Exception):
    """The turn is to be tried again after ``seconds``; it is nobody's fault (a conflict, a busy server)."""

    def __init__(self, seconds: float, message: str):
        """Say when."""
        self.seconds = seconds
        super().__init__(message)


@dataclass
class Backoff:
    """How long to wait after failures in a row: doubling, capped, jittered, without an end."""

    base: float = 0.5
    cap: float = 120.0
    random: random.Random = field(default_factory=random.Random)

    def delay(self, failures: int) -> float:
        """Return seconds to wait after so many failures (at least one)."""
        whole = min(self.cap, self.base * 2.0 ** min(failures - 1, 30))
        return whole * (0.5 + self.random.random() / 2)


class WorkQueue:
    """Names to work on."""

    def __init__(
        self,
        handle: Handle,
        *,
        backoff: Backoff | None = None,
        observe: Callable[[str, float], None] = lambda result, seconds: None,
    ) -> None:
        """Take what a turn is.

        Args:
            handle: does one turn.
            backoff: after turns that raised.
            observe: told of each turn: "ok", "retry" or "error", and its seconds.
        """
        self._handle, self._backoff, self._observe = handle, backoff or Backoff(), observe
        self._ready: asyncio.Queue[Name] = asyncio.Queue()
        self._waiting: set[Name] = set()
        self._running: set[Name] = set()
        self._again: set[Name] = set()
        self._timers: dict[Name, tuple[float, asyncio.TimerHandle]] = {}
        self._failures: dict[Name, int] = {}

    def depth(self) -> int:
        """Return how many names wait for a worker."""
        return len(self._waiting)

    def add(self, name: Name) -> None:
        """Work on a name soon; one that is being worked on is taken up once more after that."""
        if name in self._running:
            self._again.add(name)
        elif name not in self._waiting:
            self._waiting.add(name)
            self._ready.put_nowait(name)

    def add_after(self, name: Name, seconds: float) -> None:
        """Work on a name after a time; an earlier appointment of the same name stands."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        known = self._timers.get(name)
        if known is not None:
            if known[0] <= due:
                return
            known[1].cancel()
        self._timers[name] = (due, loop.call_later(seconds, self._due, name))

    async def work(self) -> None:
        """Be one worker, for ever."""
        while True:
            name = await self._ready.get()
            self._waiting.discard(name)
            self._running.add(name)
            try:
                await self._turn(name)
            finally:
                self._running.discard(name)
                if name in self._again:
                    self._again.discard(name)
                    self.add(name)

    async def _turn(self, name: Name) -> None:
        began = time.monotonic()
        result = "ok"
        try:
            again = await self._handle(name)
            self._failures.pop(name, None)
            if again is not None:
                self.add_after(name, again)
        except RetryError as error:
            result = "retry"
            log.info("%s", error, extra={"leanmodel": "/".join(name)})
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            self.add_after(name, max(error.seconds, self._backoff.delay(failures) if failures > 1 else 0.0))
        except Exception:
            result = "error"
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            delay = self._backoff.delay(failures)
            log.exception("turn failed; again in %.1f s", delay, extra={"leanmodel": "/".join(name)})
            self.add_after(name, delay)
        finally:
            self._observe(result, time.monotonic() - began)

    def _due(self, name: Name) -> None:
        self._timers.pop(name, None)
        self.add(name)
