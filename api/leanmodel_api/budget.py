"""What may be spent and asked: budgets of a LeanModel or of a key, and the rules that hold for them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .base import DECIMAL_PATTERN, Part, quantity, seconds
from .errors import Issue

if TYPE_CHECKING:
    from .resource import Spec

MOST_USD = Decimal(10) ** 9
"""Largest budget: its nano-dollars still fit into the ledger's 64 bits, many times over."""
WhenExceeded = Literal["LeanOnly", "Reject"]
Dollars = Annotated[str, Field(pattern=DECIMAL_PATTERN, max_length=32)]


class Budget(Part):
    """What may be spent in an hour and in a day, by the clock in UTC."""

    usd_per_hour: Dollars | None = Field(
        None,
        alias="usdPerHour",
        description="US dollars from one full hour (UTC) to the next; above 0. Default: no limit by the hour.",
    )
    usd_per_day: Dollars | None = Field(
        None,
        alias="usdPerDay",
        description="US dollars from midnight to midnight (UTC); above 0. Default: no limit by the day.",
    )
    when_exceeded: WhenExceeded = Field(
        "Reject",
        description="What a request meets that may cost more than is left. Reject: 429 with Retry-After. LeanOnly: the "
        "lean model answers alone, without a promise (unless it alone is certified); what it costs is counted, and "
        "not held back. Default Reject.",
    )

    def limits(self) -> tuple[tuple[str, str], ...]:
        """Return (field, amount) of each limit that is given."""
        found = (("usdPerHour", self.usd_per_hour), ("usdPerDay", self.usd_per_day))
        return tuple((name, amount) for name, amount in found if amount is not None)


def amount_problem(text: str) -> str:
    """Return what is wrong with an amount of a budget; empty when nothing is.

    Args:
        text: a decimal string of US dollars.
    """
    amount = Decimal(text)
    if amount <= 0:
        return "expected above 0"
    return f"expected at most {MOST_USD:,f}" if amount > MOST_USD else ""


def budget_issues(spec: Spec) -> Iterable[Issue]:
    """Yield what is wrong with budget and limits of a manifest."""
    budget = spec.routing.budget
    if budget is not None:
        field = "spec.routing.budget"
        if not budget.limits():
            yield Issue(field, "has neither usdPerHour nor usdPerDay", "write one of them, or both")
        for name, text in budget.limits():
            problem = amount_problem(text)
            if problem:
                yield Issue(f"{field}.{name}", f"found {text}, {problem}", 'write US dollars, such as "20"')
        if spec.pricing is None:
            yield Issue(
                field,
                "there are no prices to count with",
                "write spec.pricing.large and spec.pricing.lean, or remove the budget",
            )
        if budget.when_exceeded == "LeanOnly" and spec.lean is None:
            yield Issue(
                f"{field}.whenExceeded", "found LeanOnly, and there is no lean model",
                "write Reject, or add spec.lean",
            )  # fmt: skip
    yield from _traffic_issues(spec)


def _traffic_issues(spec: Spec) -> Iterable[Issue]:
    limits, field = spec.serving.router.limits, "spec.serving.router.limits"
    if limits is None:
        return
    if limits.concurrency is None and limits.queue is not None:
        yield Issue(
            f"{field}.queue", f"found {limits.queue}, but nothing bounds what is under way",
            f"write {field}.concurrency, or remove queue",
        )  # fmt: skip
    if not 1024 <= quantity(limits.max_body) <= 2**30:
        yield Issue(f"{field}.maxBody", f"found {limits.max_body}", "write from 1Ki to 1Gi, such as 4Mi")
    times = {
        "queueTimeout": limits.queue_timeout, "bodyTimeout": limits.body_timeout,
        "sendTimeout": limits.send_timeout, "requestTimeout": limits.request_timeout,
    }  # fmt: skip
    for name, text in times.items():
        if text is not None and not 0 < seconds(text) <= 86400:
            yield Issue(f"{field}.{name}", f"found {text}", "write from 1s to 24h, such as 30s")
