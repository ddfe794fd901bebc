"""Dynamic batching by load: what arrives while one batch is computed makes the next one.

A lonely request waits for nobody, and a batch is as large as the load; there is no time to tune. Serve's own
``serve.batch`` (2.60) closes a batch when it is filled or its waiting time is over, whether the model is free or not:
without a waiting time each request under load becomes a batch of its own, and with one a lonely request waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Gatherer(Generic[T, R]):
    """Computes items in batches, one batch at a time; lives in one event loop.

    Args:
        compute: takes the items of a batch, returns one result for each, in order.
        most: items of a batch at most.
    """

    def __init__(self, compute: Callable[[list[T]], Awaitable[list[R]]], most: int) -> None:
        """Start with nothing waiting."""
        self._compute, self._most = compute, most
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """Return the item's result; whoever is cancelled while waiting is left out of the next batch.

        Raises:
            Exception: what ``compute`` raised for its batch.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            taken: list[tuple[T, asyncio.Future[R]]] = []
            while self._waiting and len(taken) < self._most:
                item, future = self._waiting.popleft()
                if not future.done():
                    taken.append((item, future))
            if taken:
                await self._answer(taken)

    async def _answer(self, taken: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._compute([item for item, _ in taken])
        except Exception as error:
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(taken, results, strict=True):
            if not future.done():
                future.set_result(result)
