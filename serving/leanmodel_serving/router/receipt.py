"""What is held for one request until it is settled or dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from leanmodel_api.keys import KeyEntry, KeyLimits

from ..ledger.books import MODEL, Hold, Left, Limit, Refusal
from ..ledger.clerk import Clerk, LedgerError
from ..ledger.file import Release, Result, Settle

NANO_PER_MICRO = 1000
MICRO_PER_USD = 10**6


@dataclass(frozen=True)
class Caller:
    """Who asks: a key's id and tenant, and what it may use; without keys nobody in particular."""

    key: str = ""
    tenant: str = ""
    limits: KeyLimits = field(default_factory=KeyLimits)

    @classmethod
    def of(cls, entry: KeyEntry) -> Caller:
        """Return who uses a key."""
        return cls(entry.id, entry.tenant, entry.limits)


ANYBODY = Caller()


class Receipt:
    """Either of :meth:`settle` and :meth:`drop` ends it; the second does nothing.

    Attributes:
        left: what the budgets leave, as of the last operation.
    """

    def __init__(
        self,
        clerk: Clerk | None = None,
        hold: Hold | None = None,
        limits: tuple[Limit, ...] = (),
        tokens_per_minute: int | None = None,
        left: Sequence[Left] = (),
    ) -> None:
        """Begin with a reservation; without one nothing is counted.

        Args:
            limits: budgets that are shown.
            tokens_per_minute: the key's rate, where it has one.
        """
        self._clerk, self._hold, self._limits, self._rate = clerk, hold, limits, tokens_per_minute
        self._keyed = hold is not None and bool(hold.key)
        self.left = left

    async def settle(self, nano: int, tokens: int) -> None:
        """Count what the request cost; on return it is committed, or kept in memory where nothing can be written."""
        operation = self._settlement(nano, tokens)
        if operation is None or self._clerk is None:
            return
        try:
            self.left = lefts(await self._clerk.ask(operation)) or self.left
        except LedgerError:  # in the log already; the client has its answer all the same
            self.left = ()

    def drop(self, nano: int, tokens: int) -> None:
        """End a request that was not answered: with what it did cost, or with nothing."""
        hold, operation = self._hold, self._settlement(nano, tokens)
        if hold is not None and operation is not None and self._clerk is not None:
            self._clerk.tell(operation if nano or tokens or hold.tokens else Release(hold))

    def _settlement(self, nano: int, tokens: int) -> Settle | None:
        hold, self._hold = self._hold, None
        if hold is None or self._clerk is None:
            return None
        return Settle(hold, nano, tokens, self._limits, self._rate, self._clerk.clock())

    def headers(self) -> dict[str, str]:
        """Return what is left of the tightest budget, a key's own before the LeanModel's.

        Of a key without a budget nothing is told: what is left of the whole is what others have spent.
        """
        shown = [left for left in self.left if (left.limit.account != MODEL) == self._keyed]
        if not shown:
            return {}
        least = min(shown, key=lambda left: left.nano)
        return {
            "x-leanmodel-budget-left-usd": micro_usd(least.nano),
            "x-leanmodel-budget-window": f"{least.limit.span}; ends-in={least.ends_in}",
        }


def lefts(result: Result) -> list[Left]:
    """Return what is left by an answer of the ledger; nothing by a refusal."""
    return [] if isinstance(result, Refusal) else result


def micro_usd(nano: int) -> str:
    """Return nano-dollars as dollars in whole micro-dollars, rounded down."""
    whole, rest = divmod(nano // NANO_PER_MICRO, MICRO_PER_USD)
    return f"{whole}.{rest:06d}"
