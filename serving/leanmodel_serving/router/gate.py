"""So many requests under way at once; more wait their turn, for so long, and more than that are sent away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil

from leanmodel_api.pressure import QUEUE_PER_PLACE
from leanmodel_api.router import RouterLimits

from ..metrics import Meters
from .errors import ApiError

QUEUE_S = 10.0


class Gate:
    """First come, first served; the bounds are those of the settings that the latest request came under."""

    def __init__(self) -> None:
        """Start empty."""
        self.active = 0
        self._most: int | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def show(self, meters: Meters) -> None:
        """Put how many are under way and wait into the metrics."""
        meters.set("leanmodel_requests_active", float(self.active))
        meters.set("leanmodel_requests_waiting", float(self.waiting))

    @asynccontextmanager
    async def place(self, limits: RouterLimits) -> AsyncIterator[None]:
        """Hold a place for the time of the ``with``.

        Raises:
            ApiError: 429, too many wait already, or it took too long.
        """
        await self._enter(limits)
        try:
            yield
        finally:
            self.active -= 1
            self._call()

    async def _enter(self, limits: RouterLimits) -> None:
        self._most = most = limits.concurrency
        self._call()  # the bound may have been raised
        if most is None or self.active < most:
            self.active += 1
            return
        room = limits.queue if limits.queue is not None else QUEUE_PER_PLACE * most
        patience = limits.queue_timeout or QUEUE_S
        if self.waiting >= room:
            raise _busy(f"{most} requests are under way and {room} wait", patience, "queue_full")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.active -= 1  # it was called in the very moment that it gave up
                self._call()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise _busy(f"no place came free within {patience:g} s", patience, "queue_timeout") from None
            raise

    def _call(self) -> None:
        """Give free places to those who wait."""
        while self._waiting and (self._most is None or self.active < self._most):
            turn = self._waiting.popleft()
            if not turn.done():
                self.active += 1
                turn.set_result(None)


def _busy(why: str, patience: float, code: str) -> ApiError:
    return ApiError(
        429, f"{why}; try again later", kind="rate_limit_error", code=code, retry_after=max(1, ceil(patience / 2))
    )  # fmt: skip
