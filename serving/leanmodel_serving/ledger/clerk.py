"""A thread that keeps the ledger, beside the event loop that asks it.

Operations that come while a transaction is under way go into the next one together, so that a busy router commits a
few hundred times a second however many requests it answers, and the loop never waits for a file.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .file import LEASE_S, Operation, Release, Result, Settle
from .keeper import Keeper, LedgerDownError

BEAT_S = LEASE_S / 6
MOST_AT_ONCE = 500
SWEEP_S = 3600.0
log = logging.getLogger("ray.serve")


class LedgerError(Exception):
    """The ledger could not be asked; nothing was reserved."""


@dataclass(frozen=True)
class _Asked:
    operation: Operation
    answer: asyncio.Future[Result] | None


class Clerk:
    """One process's hand on the ledger.

    Attributes:
        owner: name of the process in it; new at each start.
        problem: why nothing can be written; empty when it can.
    """

    def __init__(self, file: Keeper, clock: Callable[[], float] = time.time) -> None:
        """Take the ledger; the thread starts with the first operation."""
        self._file, self.clock = file, clock
        self.owner = uuid.uuid4().hex
        self.problem = "" if file.lasting else "it is kept in memory, for this replica alone"
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._unwritten: list[Operation] = []
        self._thread: threading.Thread | None = None
        self._swept = 0.0

    async def ask(self, operation: Operation) -> Result:
        """Return the answer to an operation once it is committed.

        A settlement that cannot be written is kept, and written with the next that can; its answer is empty.

        Raises:
            LedgerError: a reservation could not be written.
        """
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._put(_Asked(operation, answer))
        return await answer

    def tell(self, operation: Operation) -> None:
        """Have an operation carried out soon, without an answer."""
        self._put(_Asked(operation, None))

    def close(self) -> None:
        """Write what was told, and end."""
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join()
            self._thread = None
        self._file.close()

    # ---------------------------------------------------------------- the thread

    def _put(self, asked: _Asked) -> None:
        self._asked.put(asked)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """Carry out what is asked, all that waits at once; with nothing to do renew the lease now and then."""
        while True:
            found = self._next()
            ends = None in found
            asked = [one for one in found if one is not None]
            try:
                self._carry_out(asked)
            except Exception as error:  # the thread must not end: everybody would wait for ever
                log.exception("ledger")
                self._answer(asked, LedgerError(str(error)))
            if ends:
                return

    def _next(self) -> list[_Asked | None]:
        found: list[_Asked | None] = []
        try:
            found.append(self._asked.get(timeout=BEAT_S))
            while len(found) < MOST_AT_ONCE:
                found.append(self._asked.get_nowait())
        except queue.Empty:
            pass
        return found

    def _carry_out(self, asked: Sequence[_Asked]) -> None:
        kept, now = self._unwritten, self.clock()
        try:
            results = self._file.apply([*kept, *(one.operation for one in asked)], self.owner, now)
            if now - self._swept > SWEEP_S:
                self._file.sweep(now)
                self._swept = now
        except (sqlite3.Error, LedgerDownError) as error:
            self._fail(asked, str(error))
            return
        if self.problem and self._file.lasting:
            log.info("ledger: written again")
            self.problem = ""
        self._unwritten = []
        self._answer(asked, results[len(kept) :])

    def _fail(self, asked: Sequence[_Asked], words: str) -> None:
        """Keep what must not be lost, refuse the rest."""
        if words != self.problem:
            log.error("the ledger cannot be written: %s", words)
        self.problem = words
        lasting = [one for one in asked if isinstance(one.operation, Settle | Release)]
        self._unwritten = [*self._unwritten, *(one.operation for one in lasting)]
        self._answer(lasting, [[] for _ in lasting])
        self._answer(
            [one for one in asked if not isinstance(one.operation, Settle | Release)], LedgerError(words)
        )

    def _answer(self, asked: Sequence[_Asked], results: Sequence[Result] | LedgerError) -> None:
        waiting: dict[
            asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Result], Result | LedgerError]]
        ] = {}
        for index, one in enumerate(asked):
            if one.answer is not None:
                result = results if isinstance(results, LedgerError) else results[index]
                waiting.setdefault(one.answer.get_loop(), []).append((one.answer, result))
        for loop, answers in waiting.items():
            try:
                loop.call_soon_threadsafe(_resolve, answers)
            except RuntimeError:  # the loop has ended, and nobody waits
                log.info("ledger: %d answers that nobody waits for", len(answers))


def _resolve(answers: Sequence[tuple[asyncio.Future[Result], Result | LedgerError]]) -> None:
    for future, result in answers:
        if future.done():  # the client went away meanwhile
            continue
        if isinstance(result, LedgerError):
            future.set_exception(result)
        else:
            future.set_result(result)
