"""Bounds on the internal route: so many at once, so many a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import ApiError


class Limiter:
    """A counter of requests under way and a bucket that fills at a rate (a second's worth deep)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing under way and a full bucket."""
        self._clock = clock
        self.active = 0
        self._tokens: float | None = None
        self._at = clock()

    @contextmanager
    def slot(self, concurrency: int, per_second: float) -> Iterator[None]:
        """Hold a place for the time of the ``with``.

        Raises:
            ApiError: 429, no place or no token left.
        """
        now = self._clock()
        depth = max(1.0, per_second)
        filled = depth if self._tokens is None else self._tokens + (now - self._at) * per_second
        self._tokens, self._at = min(depth, filled), now
        if self.active >= concurrency:
            raise _too_many(f"{concurrency} requests are under way on the internal route")
        if self._tokens < 1.0:
            raise _too_many(f"more than {per_second:g} requests a second on the internal route")
        self._tokens -= 1.0
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1


def _too_many(why: str) -> ApiError:
    return ApiError(
        429, f"{why}; ask more slowly", kind="rate_limit_error", code="rate_limit_exceeded", retry_after=1
    )
