"""What keeps the ledger, as its clerk sees it: a file (:mod:`.file`) or a Redis (:mod:`.redis_store`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .file import Operation, Result


class LedgerDownError(Exception):
    """The ledger cannot be reached or written; nothing was done, as far as can be told."""


class Keeper(Protocol):
    """Carries operations out; used from one thread."""

    @property
    def lasting(self) -> bool:
        """Whether it outlives the process."""

    def apply(self, batch: Sequence[Operation], owner: str, now: float) -> list[Result]:
        """Carry out operations in their order, all or none; return their answers.

        Args:
            batch: what to do.
            owner: the process; its lease is renewed, and what lapsed of others is given back.
            now: seconds since the epoch.

        Raises:
            LedgerDownError, sqlite3.Error: nothing was done.
        """

    def sweep(self, now: float) -> None:
        """Forget what is too old to matter."""

    def close(self) -> None:
        """Let go of it."""
