"""A second, cheaper promise: what it keeps, and what puts the router under the pressure in which it holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from .base import Fraction, Part, number
from .errors import Issue

if TYPE_CHECKING:
    from .resource import Spec

QUEUE_PER_PLACE = 4
"""Requests that may wait for each place, where the manifest does not say how many."""


class Strain(Part):
    """What counts as pressure; any one of it is enough. At least one is to be given."""

    budget: Fraction | None = Field(
        None,
        description="Share of the LeanModel's hourly or daily budget (spec.routing.budget), spent or held: pressure from "
        "there on while more of the budget is gone than of its hour or day. Above 0.",
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Requests under way at once in a replica of the router.",
    )
    queue: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Requests that wait for a place in a replica (it needs spec.serving.router.limits.concurrency).",
    )

    def given(self) -> bool:
        """Return whether there is anything by which pressure could come."""
        return self != Strain()


class UnderPressure(Part):
    """The second promise: certified together with the first, in force while there is pressure and no longer."""

    retain: Fraction = Field(
        description="Share of the large model's mean quality that is kept under pressure; below promise.retain. The "
        "promise's risk is shared: the chance that either certificate is wrong is at most spec.routing.promise.risk."
    )
    when: Strain = Field(description="What pressure is.")


def pressure_issues(spec: Spec) -> Iterable[Issue]:
    """Yield what is wrong with the second promise of a manifest."""
    second, field = spec.routing.under_pressure, "spec.routing.underPressure"
    if second is None:
        return
    first = spec.routing.promise.retain
    if not 0 < number(second.retain) < number(first):
        yield Issue(
            f"{field}.retain", f"found {second.retain}, not between 0 and spec.routing.promise.retain {first}",
            "lower it: under pressure less is promised, so that fewer requests go to the large model",
        )  # fmt: skip
    if spec.routing.strategy == "Fixed":
        yield Issue(
            field,
            "found with strategy Fixed, which promises nothing",
            "remove it, or write another strategy",
        )
    if spec.lean is None:
        yield Issue(field, "there is no lean model", "remove it, or add spec.lean")
    yield from _strain_issues(spec, second.when, f"{field}.when")


def _strain_issues(spec: Spec, when: Strain, field: str) -> Iterable[Issue]:
    limits = spec.serving.router.limits
    most = limits.concurrency if limits is not None else None
    if not when.given():
        yield Issue(field, "has neither budget nor concurrency nor queue", "write one of them, or more")
    if when.budget is not None and not number(when.budget) > 0:
        yield Issue(f"{field}.budget", f"found {when.budget}", 'write above 0, such as "0.5"')
    if when.budget is not None and spec.routing.budget is None:
        yield Issue(
            f"{field}.budget", "there is no budget to hold it against", "write spec.routing.budget, or remove it"
        )  # fmt: skip
    if when.concurrency is not None and most is not None and when.concurrency > most:
        yield Issue(
            f"{field}.concurrency", f"found {when.concurrency}, and no more than {most} are ever under way",
            f"write at most spec.serving.router.limits.concurrency ({most}), or queue",
        )  # fmt: skip
    if when.queue is not None and (limits is None or most is None):
        yield Issue(
            f"{field}.queue", "nothing ever waits, for nothing bounds what is under way",
            "write spec.serving.router.limits.concurrency, or remove it",
        )  # fmt: skip
    elif when.queue is not None and limits is not None and most is not None:
        room = limits.queue if limits.queue is not None else QUEUE_PER_PLACE * most
        if when.queue > room:
            yield Issue(
                f"{field}.queue", f"found {when.queue}, and no more than {room} may wait",
                "lower it, or raise spec.serving.router.limits.queue",
            )  # fmt: skip
