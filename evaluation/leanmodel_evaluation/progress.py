"""Progress lines of the prove Job, with a time to go from the speeds that it measures as it works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from leanmodel_api.progress import ProgressLine

INTERVAL = 1.0
GUESS = 0.25
"""Seconds per request of which nothing is known yet, at the proof's concurrency."""


@dataclass
class Phase:
    """One step of the Job: how many units it has, and what one takes.

    Attributes:
        like: name of the phase whose speed is the best guess until this one has been measured.
        factor: what a unit takes against one of that phase.
    """

    name: str
    total: float
    unit_seconds: float | None = None
    like: str | None = None
    factor: float = 1.0
    done: float = 0
    known: float = 0
    started: float | None = None
    finished: bool = False


@dataclass
class Progress:
    """Follows the phases in order and prints a line at most every second, and at each start and end."""

    phases: list[Phase]
    clock: Callable[[], float] = time.monotonic
    out: Callable[[str], None] = lambda line: print(line, flush=True)
    _last: float = field(default=float("-inf"))

    def start(self, name: str, total: float, message: str = "") -> Callable[[int, int], None]:
        """Begin a phase and return what is called with (done, total) as it goes on."""
        phase = self._phase(name)
        phase.total, phase.started = total, self.clock()
        self._print(phase, "started", message)
        first: list[int] = []

        def report(done: int, total: int) -> None:
            if not first:
                first.append(done)
                phase.known = done
            phase.done, phase.total = done, max(total, 1)
            spent = self.clock() - (phase.started or 0)
            if done - phase.known >= 5:
                phase.unit_seconds = spent / (done - phase.known)
            if self.clock() - self._last >= INTERVAL:
                self._print(phase, "running", message)

        return report

    def finish(self, name: str, message: str = "", cached: bool = False) -> None:
        """End a phase."""
        phase = self._phase(name)
        phase.done, phase.finished = phase.total, True
        self._print(phase, "cached" if cached else "finished", message)

    def known(self) -> bool:
        """Say whether a request has been timed yet, without which the time to go is a guess."""
        return self.phases[0].finished or self.phases[0].unit_seconds is not None

    def eta(self) -> float:
        """Return the seconds to go, as they look now."""
        return sum(self._left(phase) for phase in self.phases)

    def percent(self) -> int:
        """Return the share of the whole Job's time that is behind it, 0 to 100."""
        whole = sum(max(phase.total, phase.done) * self._unit(phase) for phase in self.phases)
        return max(0, min(100, round(100 * (1 - self.eta() / whole)))) if whole > 0 else 0

    def _left(self, phase: Phase) -> float:
        return 0.0 if phase.finished else max(0.0, phase.total - phase.done) * self._unit(phase)

    def _unit(self, phase: Phase) -> float:
        if phase.unit_seconds is not None:
            return phase.unit_seconds
        return phase.factor * self._unit(self._phase(phase.like)) if phase.like else GUESS

    def _phase(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)

    def _print(self, phase: Phase, state: str, message: str) -> None:
        self._last = self.clock()
        line = ProgressLine.model_validate(
            {
                "job": "prove",
                "step": phase.name,
                "state": state,
                "done": phase.done,
                "total": phase.total,
                "percent": self.percent(),
                "eta_seconds": round(self.eta(), 1) if self.known() else None,
                "message": message,
            }  # fmt: skip
        )
        self.out(line.line())
