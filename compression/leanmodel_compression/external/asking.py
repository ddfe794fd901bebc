"""Asking a teacher everything that is not answered yet, in order, within the bounds.

Calls are begun in the order of the prompts, each after the most that it can cost was set aside. What does not fit waits
for calls under way to be settled; when none is, the bound is reached. So asking ends at the same prompt however many
calls run at once, and a Job that is started again asks for nothing more.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from leanmodel_api.base import seconds
from leanmodel_api.errors import InputError, Issue, LeanModelError
from leanmodel_api.parts import Example
from leanmodel_api.teacher_rules import FIELD

from . import prompts
from .book import Book, Bound
from .money import bound, tariff
from .provider import Again, Answered, Provider, Refused

Told = Callable[[int, int, int], None]
Sleep = Callable[[float], Awaitable[None]]
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
# So many refusals before any answer mean that the request is wrong, not the prompts.
MOST_REFUSALS = 8


class TeacherSilentError(LeanModelError):
    """The teacher did not answer in time; the Job may be tried again as it is."""


@dataclass
class Asking:
    """One round of asking.

    Attributes:
        provider: whom to ask.
        book: where answers and costs are kept; open for writing.
        told: called with (answered, all, spent in 10⁻¹² US dollars) as answers come in.
        sleep: waits so many seconds.
        clock: seconds, from anywhere.
    """

    provider: Provider
    book: Book
    told: Told
    sleep: Sleep = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    reached: Bound | None = None
    _refused: list[tuple[str, str]] = field(default_factory=list)
    _heard: bool = False
    _resting: int = 0
    _draw: random.Random = field(default_factory=random.Random)

    async def ask(self, wanted: Mapping[str, Example]) -> None:
        """Ask for every answer that the book lacks, until all are there or a bound is reached (see ``reached``).

        Args:
            wanted: examples by the digest of prompt and settings, in the order in which they are asked.

        Raises:
            InputError: the provider cannot be asked, or refuses everything.
            TeacherSilentError: it did not answer in time.
        """
        self._turn, self._stop = asyncio.Condition(), asyncio.Event()
        answers, self._all = self.book.ledger.answers, len(wanted)
        known = [answer for key in wanted if (answer := answers.get(key)) is not None]
        self._heard, self._done = any(answer.finish != "refused" for answer in known), len(known)
        self.told(self._done, self._all, self.book.ledger.spent)
        try:
            await self._round(wanted)
            while self._stop.is_set() and self._heard and self.reached is None:
                # So many were refused that the request was doubted; then came an answer.
                self._stop.clear()
                await self._round(wanted)
        finally:
            await self.provider.close()
        if self._refused and not self._heard:
            raise self._all_refused()

    async def _round(self, wanted: Mapping[str, Example]) -> None:
        """Ask for what is missing, until all is asked for or everything has to end."""
        slots = asyncio.Semaphore(self.provider.teacher.concurrency)
        running: set[asyncio.Task[None]] = set()
        for key, example in wanted.items():
            if key in self.book.ledger.answers:
                continue
            await slots.acquire()
            if self._stop.is_set():
                break
            call = await self._begin(key, example, again=False)
            if call is None:
                break
            task = asyncio.create_task(self._settle(key, example, call))
            running.add(task)
            task.add_done_callback(lambda _: slots.release())
        # Calls that are under way are paid for: their answers are waited for, whatever else happened.
        errors = [error for error in await asyncio.gather(*running, return_exceptions=True) if error]
        if errors:
            raise errors[0]

    async def _begin(self, key: str, example: Example, *, again: bool) -> int | None:
        """Set aside what a call can cost and return its number; None when a bound is reached, or all is to end.

        A prompt that is asked again comes before those that were not asked yet.
        """
        teacher = self.provider.teacher
        most, amount = prompts.most(example, teacher, tariff(teacher.price)), bound(teacher.max_usd)
        async with self._turn:
            while (tight := self.book.ledger.tight(most, teacher.max_calls, amount)) is not None:
                if self._stop.is_set():
                    return None
                if not self.book.ledger.under_way and (again or not self._resting):
                    self.reached = tight
                    self._stop.set()
                    self._turn.notify_all()
                    return None
                await self._turn.wait()
            return None if self._stop.is_set() else self.book.asked(key, most)

    async def _settle(self, key: str, example: Example, call: int | None) -> None:
        """See a prompt through: ask, and ask again where that may help."""
        teacher = self.provider.teacher
        deadline, tries = self.clock() + seconds(teacher.retry_for), 0
        while call is not None:
            try:
                found = await self.provider.ask(prompts.body(example, teacher, self.provider.limit_name))
            except InputError:
                self._stop.set()
                await self._after(partial(self.book.free, call))
                raise
            if isinstance(found, Answered):
                await self._after(partial(self._keep, key, call, found))
                return
            if isinstance(found, Refused):
                await self._after(partial(self._refuse, key, call, found))
                return
            close = self.book.lost if found.charged else self.book.free
            wait = self._wait(found, tries)
            late = self.clock() + wait > deadline
            if late:
                self._stop.set()
            self._resting += 1
            await self._after(partial(close, call))
            if late:
                raise TeacherSilentError(
                    f"{FIELD}.retryFor: {teacher.external.base_url} did not answer a prompt within {teacher.retry_for} "
                    f"(last: {found.words}); {self._done} of {self._all} are answered and kept, so start the Job again "
                    "when it is up"
                )
            await self._rest(wait)
            tries += 1
            self._resting -= 1
            call = await self._begin(key, example, again=True)

    async def _rest(self, wait: float) -> None:
        """Wait so many seconds, or until all is to end."""
        both = {asyncio.ensure_future(self.sleep(wait)), asyncio.ensure_future(self._stop.wait())}
        _, left = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for one in left:
            one.cancel()

    async def _after(self, note: Callable[[], None]) -> None:
        """Write down how a call ended, and let those that wait look again."""
        async with self._turn:
            note()
            self._turn.notify_all()

    def _keep(self, key: str, call: int, found: Answered) -> None:
        answer = found.answer
        prices = tariff(self.provider.teacher.price)
        cost = prices.cost(answer.prompt_tokens, answer.answer_tokens) if found.counted else None
        self.book.answered(call, key, answer, cost)
        self._heard = True
        while self._refused:
            self.book.refused(self._refused.pop()[0])
        self._count()

    def _refuse(self, key: str, call: int, found: Refused) -> None:
        """Set the call free; the refusal is kept once anything was answered, as until then it may be of the request."""
        self.book.free(call)
        if self._heard:
            self.book.refused(key)
        else:
            self._refused.append((key, found.words))
            if len(self._refused) >= MOST_REFUSALS:
                self._stop.set()
        self._count()

    def _count(self) -> None:
        self._done += 1
        self.told(self._done, self._all, self.book.ledger.spent)

    def _all_refused(self) -> InputError:
        found = f"{self.provider.teacher.external.base_url} refused every prompt ({self._refused[0][1]})"
        return InputError(Issue(FIELD, found, "correct model, temperature, maxTokens or system"))

    def _wait(self, found: Again, tries: int) -> float:
        """Return the seconds until the next try: what the provider asks for, or twice as long each time; with jitter."""
        if found.at_once:
            return 0.0
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0**tries)
        return max(found.wait or 0.0, wait) + wait * self._draw.random()
