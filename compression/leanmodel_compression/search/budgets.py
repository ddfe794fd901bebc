"""What a lean model may take, and whether one that was made does: bytes, a request's time, a request's price. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from leanmodel_api.base import digits, milliseconds, number, size
from leanmodel_api.plan import CompressPlan

from . import speed
from .planning import search_of
from .speed import Speed


@dataclass(frozen=True)
class Budgets:
    """Upper bounds of what is made.

    Attributes:
        bytes: as stored for serving.
        latency_ms: of one request alone; None where it may take any time.
        usd: of 1,000 requests; None where they may cost anything.
        usd_per_hour: price of a replica; None where it is not told.
        served_threads: of a replica; None where speed does not matter.
        threads: that speed is measured with: the replica's, or as many as the Job has.
    """

    bytes: int
    latency_ms: float | None = None
    usd: float | None = None
    usd_per_hour: float | None = None
    served_threads: int | None = None
    threads: int | None = None

    def bytes_note(self, made: int) -> str:
        """Return that so many bytes are too many; empty where they are not."""
        return "" if made <= self.bytes else f"{size(made)} as stored, above the budget of {size(self.bytes)}"

    def speed_note(self, found: Speed) -> str:
        """Return which bounds of time and money a speed breaks; empty where it keeps them."""
        notes = []
        if self.latency_ms is not None and found.latency_ms.value > self.latency_ms:
            taken = digits(found.latency_ms.value)
            notes.append(
                f"{taken} ms a request at the 95th percentile, above the budget of {digits(self.latency_ms)} ms"
            )
        if self.usd is not None and self.usd_per_hour is not None:
            cost = speed.dollars(found, self.usd_per_hour).value
            if cost > self.usd:
                rate = digits(found.requests_per_second.value)
                notes.append(
                    f"{digits(cost)} USD for 1,000 requests ({rate} a second), above the budget of {digits(self.usd)} USD"
                )
        return "; ".join(notes)

    def excess(self, found: Speed) -> float:
        """Return by how much a speed breaks the bound that it breaks most: 1 is just kept."""
        shares = [0.0]
        if self.latency_ms is not None:
            shares.append(found.latency_ms.value / self.latency_ms)
        if self.usd is not None and self.usd_per_hour is not None:
            shares.append(speed.dollars(found, self.usd_per_hour).value / self.usd)
        return max(shares)


def budgets_of(plan: CompressPlan, most: int) -> Budgets:
    """Return a plan's bounds.

    Args:
        plan: with a search whose replica is told where a bound asks for it (:mod:`..checks` refuses others).
        most: bytes at most.
    """
    budget, replica = search_of(plan).budget, plan.replica
    if budget.latency is None and budget.usd_per_thousand_requests is None:
        return Budgets(most)
    if replica is None or replica.threads is None:
        raise ValueError("the plan does not say how the lean model is served")
    usd, price = budget.usd_per_thousand_requests, replica.usd_per_hour
    return Budgets(
        bytes=most,
        latency_ms=None if budget.latency is None else milliseconds(budget.latency),
        usd=None if usd is None else number(usd),
        usd_per_hour=None if price is None else number(price),
        served_threads=replica.threads,
        threads=min(replica.threads, plan.limits.threads),
    )
