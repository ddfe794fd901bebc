"""Where a request's money is taken: reserved before any engine is asked, settled before its answer ends.

A request that is broken off in between costs what is known of it. Without a budget and without a key that has limits
nothing is written, and nothing waited for.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

from leanmodel_api.budget import Budget

from ..ledger.books import LENGTH, MODEL, Hold, Left, Limit, Rates, Refusal, start
from ..ledger.clerk import Clerk, LedgerError
from ..ledger.file import Look, Release, Reserve
from ..metrics import Meters
from .ask import Ask
from .bound import likely_tokens, most_nano, most_tokens
from .cost import NANO_PER_USD, Tariff
from .lean_only import lean_only
from .pressure import Gone
from .receipt import ANYBODY, Caller, Receipt, lefts
from .refusals import no_ledger, over_budget, too_fast
from .route import Route
from .snapshot import Snapshot

LOOK_S, SHOWN_S = 0.25, 5.0
_GAUGES = ("leanmodel_budget_usd", "leanmodel_budget_left_usd", "leanmodel_ledger_kept")


class Till:
    """Reserves; one per replica."""

    def __init__(self, clerk: Clerk, meters: Meters) -> None:
        """Take the ledger."""
        self.clerk, self._meters = clerk, meters
        self._numbers = itertools.count(1)
        self._shown = float("-inf")
        self._limits: tuple[Limit, ...] = ()
        self._lefts: list[Left] = []
        self._looked = 0.0

    async def open(
        self, state: Snapshot, caller: Caller, ask: Ask, size: int, route: Route
    ) -> tuple[Route, Receipt]:
        """Reserve what a request may cost; return its route, which a budget may have changed, and the receipt.

        Args:
            size: bytes of its body.
            route: where it starts by all other rules.

        Raises:
            ApiError: 429, its key asks too fast or there is no money left; 400, the whole budget could not pay for it;
                503, the ledger cannot be written.
        """
        key = caller.limits
        limits = (*limits_of(MODEL, state.settings.budget), *limits_of(caller.key, key.budget))
        rates = Rates(key.requests_per_minute, key.tokens_per_minute, key.concurrency)
        if not limits and rates == Rates():
            return route, Receipt()
        alone, most = bounds(state, ask, size, route)
        tokens = likely_tokens(ask, size, route.fill) if rates.tokens is not None else 0
        try:
            found = await self._reserve(caller, limits, limits, rates, most, tokens)
            if isinstance(found, Receipt):
                return route, found
            lean = lean_only(state, route) if found.limit is not None and found.limit.lenient else None
            if lean is not None:
                # What the lean model costs is held back by the budgets alone that say Reject.
                strict = tuple(limit for limit in limits if not limit.lenient)
                found, most = await self._reserve(caller, strict, limits, rates, alone, tokens), alone
                if isinstance(found, Receipt):
                    return lean, found
        except LedgerError as error:
            raise no_ledger() from error
        raise over_budget(found, most) if found.why == "budget" else too_fast(found)

    async def shadow(self, state: Snapshot, ask: Ask, size: int, route: Route) -> Receipt | None:
        """Reserve what a shadow may cost the LeanModel; None where there is no money for it."""
        limits = limits_of(MODEL, state.settings.budget)
        if not limits:
            return Receipt()
        alone, most = bounds(state, ask, size, route)
        try:
            found = await self._reserve(ANYBODY, limits, limits, Rates(), most - 2 * alone, 0)
        except LedgerError:
            return None
        return found if isinstance(found, Receipt) else None

    async def _reserve(
        self,
        caller: Caller,
        checked: tuple[Limit, ...],
        shown: tuple[Limit, ...],
        rates: Rates,
        nano: int,
        tokens: int,
    ) -> Receipt | Refusal:
        now = self.clerk.clock()
        # The owner's name is new at each start, so the hold's is never used again.
        name = f"{self.clerk.owner}-{next(self._numbers)}"
        hold = Hold(name, self.clerk.owner, caller.key, int(now), nano, tokens)
        try:
            found = await self.clerk.ask(Reserve(hold, checked, shown, rates, now))
        except asyncio.CancelledError:
            self.clerk.tell(Release(hold))  # it may have been made already
            raise
        if isinstance(found, Refusal):
            return found
        return Receipt(self.clerk, hold, shown, rates.tokens, found)

    async def tend(self, state: Callable[[], Snapshot]) -> None:
        """Show what is left, for ever; apart from the settings' watch, which must not wait for the ledger.

        Args:
            state: gives the settings in force.
        """
        while True:
            await self.show(state())
            await asyncio.sleep(LOOK_S)

    async def show(self, state: Snapshot) -> None:
        """Put what is left of the LeanModel's budget into the metrics, every few seconds."""
        now, limits = self.clerk.clock(), limits_of(MODEL, state.settings.budget)
        if limits == self._limits and (not limits or now - self._shown < SHOWN_S):
            return
        if limits != self._limits:
            for gauge in _GAUGES:
                self._meters.forget(gauge)
        self._shown, self._limits = now, limits
        if not limits:
            self._lefts = []
            return
        try:
            found = lefts(await self.clerk.ask(Look(limits, now)))
        except LedgerError:
            found = []
        self._lefts, self._looked = found, now
        for left in found:
            window = left.limit.span
            self._meters.set("leanmodel_budget_usd", left.limit.nano / NANO_PER_USD, window=window)
            self._meters.set("leanmodel_budget_left_usd", left.nano / NANO_PER_USD, window=window)
        self._meters.set("leanmodel_ledger_kept", 0.0 if self.clerk.problem else 1.0)

    def gone(self) -> tuple[Gone, ...]:
        """Return what is gone of each window of the LeanModel's budget, by the last look at the ledger."""
        now = self.clerk.clock()
        return tuple(
            Gone(1.0 - left.nano / left.limit.nano, (now - begun) / LENGTH[left.limit.span])
            for left in self._lefts
            if (begun := start(left.limit.span, now)) == start(left.limit.span, self._looked)
        )


def bounds(state: Snapshot, ask: Ask, size: int, route: Route) -> tuple[int, int]:
    """Return the most that the lean model alone may cost, and the whole request, in nano-dollars.

    The lean model may be asked twice: first, and again in the large one's place.
    """
    settings = state.settings
    usage = most_tokens(ask, size, route.fill, settings.large.max_model_length)
    large, lean = most_nano(state.large, usage), 0
    if settings.external is not None:  # it may be asked in the large model's place, which may have begun
        provider = settings.external.provider
        usage = most_tokens(ask, size, route.fill, provider.max_model_length)
        large += most_nano(Tariff.priced(provider.price), usage)
    if settings.lean is not None and (settings.strategy != "AllLarge" or route.way != "large"):
        usage = most_tokens(ask, size, route.fill, settings.lean.max_model_length)
        lean = most_nano(state.lean, usage)
    return lean, 2 * lean + large


@lru_cache(maxsize=4096)
def limits_of(account: str, budget: Budget | None) -> tuple[Limit, ...]:
    """Return a budget as limits of an account."""
    if budget is None:
        return ()
    lenient = budget.when_exceeded == "LeanOnly"
    found = []
    if budget.usd_per_hour is not None:
        found.append(Limit(account, "hour", nano_of(budget.usd_per_hour), lenient))
    if budget.usd_per_day is not None:
        found.append(Limit(account, "day", nano_of(budget.usd_per_day), lenient))
    return tuple(found)


def nano_of(text: str) -> int:
    """Return a decimal string of dollars in nano-dollars; what is below one is left out."""
    return int(Decimal(text) * NANO_PER_USD)
