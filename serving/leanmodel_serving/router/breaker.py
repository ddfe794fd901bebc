"""Leaves the lean engine alone for a while after it failed repeatedly, so that nobody waits for it in vain."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Opens after ``failures`` in a row, for ``rest_s`` seconds; then one request may try again."""

    def __init__(
        self, failures: int = 3, rest_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start closed."""
        self._limit, self._rest, self._clock = failures, rest_s, clock
        self._count, self._until = 0, 0.0

    def allows(self) -> bool:
        """Say whether to ask; while open, only the one that tries again may."""
        if self._count < self._limit:
            return True
        if self._clock() < self._until:
            return False
        self._until = self._clock() + self._rest
        return True

    def saw(self, ok: bool) -> None:
        """Take in how a request went."""
        if ok:
            self._count = 0
            return
        self._count += 1
        if self._count >= self._limit:
            self._until = self._clock() + self._rest
