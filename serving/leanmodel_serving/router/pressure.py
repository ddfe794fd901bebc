"""When the second, cheaper promise is in force, and when it is no longer. Pure.

Each cause has two lines: pressure begins at the upper one, and ends once the cause has been below the lower one for CALM_S
seconds. So no promise is in force for less than that, however the load goes up and down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from leanmodel_api.base import number
from leanmodel_api.pressure import Strain

Cause = Literal["budget", "concurrency", "queue"]
CALM_S = 30.0
AHEAD = 0.05
"""How much more of a budget must be gone than of its window for pressure to begin; it ends where no more is."""
RELIEVED = 0.5
"""Share of the stated load below which there is calm."""


@dataclass(frozen=True)
class Gone:
    """One window of a budget: what is gone of its money (spent or held) and of its time, each from 0 to 1."""

    money: float
    time: float


@dataclass(frozen=True)
class Seen:
    """What a replica sees: requests under way and waiting, and the windows of the LeanModel's budget."""

    active: int = 0
    waiting: int = 0
    budget: tuple[Gone, ...] = ()


@dataclass(frozen=True)
class Pressure:
    """The causes in force, each with the time in seconds at which it was last above its lower line."""

    held: Mapping[Cause, float] = field(default_factory=dict)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The causes by name, in a fixed order; empty: the first promise is in force."""
        return tuple(cause for cause in _LINES if cause in self.held)

    def after(self, strain: Strain | None, seen: Seen, now: float) -> Pressure:
        """The pressure once something was seen.

        Args:
            strain: what counts as pressure; None: nothing does, and there is none.
            seen: load and budget.
            now: seconds of a clock that does not go back.
        """
        if strain is None:
            return Pressure()
        held: dict[Cause, float] = {}
        for cause, (upper, lower) in _LINES.items():
            since = self.held.get(cause)
            if upper(strain, seen) or (since is not None and lower(strain, seen)):
                held[cause] = now
            elif since is not None and _given(strain, cause) and now - since < CALM_S:
                held[cause] = since
        return Pressure(held)


def _given(strain: Strain, cause: Cause) -> bool:
    return getattr(strain, cause) is not None


def _spent_upper(strain: Strain, seen: Seen) -> bool:
    return strain.budget is not None and any(
        gone.money >= max(number(strain.budget), min(1.0, gone.time + AHEAD)) for gone in seen.budget
    )


def _spent_lower(strain: Strain, seen: Seen) -> bool:
    return strain.budget is not None and any(
        gone.money >= number(strain.budget) and gone.money > gone.time for gone in seen.budget
    )


def _active_upper(strain: Strain, seen: Seen) -> bool:
    return strain.concurrency is not None and seen.active >= strain.concurrency


def _active_lower(strain: Strain, seen: Seen) -> bool:
    return strain.concurrency is not None and seen.active >= RELIEVED * strain.concurrency


def _waiting_upper(strain: Strain, seen: Seen) -> bool:
    return strain.queue is not None and seen.waiting >= strain.queue


def _waiting_lower(strain: Strain, seen: Seen) -> bool:
    return strain.queue is not None and seen.waiting >= RELIEVED * strain.queue


_Line = Callable[[Strain, Seen], bool]
_LINES: dict[Cause, tuple[_Line, _Line]] = {
    "budget": (_spent_upper, _spent_lower),
    "concurrency": (_active_upper, _active_lower),
    "queue": (_waiting_upper, _waiting_lower),
}
"""By cause: whether it is at its upper line or above, and at its lower one."""
