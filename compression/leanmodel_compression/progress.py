"""Progress of the whole Job: per cent by estimated seconds, ETA corrected by what was measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from leanmodel_api.progress import ProgressLine

from .external.money import dollars

JobName = Literal["compress-large", "compress-lean"]
State = Literal["started", "running", "finished", "cached", "failed"]
INTERVAL_SECONDS = 0.5
"""Lines of a running step come at most this often, unless it is said otherwise."""


def print_line(line: ProgressLine) -> None:
    """Write a progress line to standard output and flush it."""
    sys.stdout.write(line.line() + "\n")
    sys.stdout.flush()


@dataclass
class Reporter:
    """Turns steps' units into progress lines.

    ``plan`` gives each step its estimated seconds; from then on percent and ETA are known. The estimate's
    error is learned from the work done so far and applied to the steps that are left.
    """

    job: JobName
    emit: Callable[[ProgressLine], None] = print_line
    clock: Callable[[], float] = time.monotonic
    interval: float = INTERVAL_SECONDS
    _estimates: list[float] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _index: int = -1
    _done: float = 0.0
    _total: float = 0.0
    _first: float | None = None
    _started: float = 0.0
    _passed: float = 0.0
    _spent: float = 0.0
    _expected: float = 0.0
    _belief: float = 1.0
    _last_line: float = -1e9
    _percent: int = 0

    def plan(self, names: list[str], estimates: list[float]) -> None:
        """Set the steps in order and the seconds that each is estimated to take; finished ones count 0.

        A new plan forgets how far the one before was out: a slow download says nothing about matrix products.
        """
        self._spent = self._expected = 0.0
        self._names, self._estimates = names, [max(0.0, value) for value in estimates]
        self._belief = max(1.0, 0.2 * sum(self._estimates))

    def start(self, index: int, message: str = "") -> None:
        """Begin step ``index`` of the plan."""
        self._index, self._done, self._total, self._first = index, 0.0, 0.0, None
        self._started = self.clock()
        self._send("started", message)

    def update(self, done: float, total: float, message: str = "") -> None:
        """Say how many of the running step's units are done; lines are throttled."""
        if self._first is None:
            # A resumed step starts in the middle: speed counts from there.
            self._first, self._started = done, self.clock()
        self._done, self._total = done, total
        if self.clock() - self._last_line >= self.interval:
            self._send("running", message)

    def end(self, state: Literal["finished", "cached", "failed"] = "finished", message: str = "") -> None:
        """End the running step."""
        if state == "finished" and self._index < len(self._estimates):
            self._spent += self.clock() - self._started
            self._passed += self.clock() - self._started
            self._expected += self._estimates[self._index]
        if state != "failed":
            self._done = self._total = max(self._total, 1.0)
            if self._index < len(self._estimates):
                self._estimates[self._index] = 0.0
            # What the step took is in the sums above; it must not be counted again as still running.
            self._first, self._started = self._done, self.clock()
        self._send(state, message)

    def message(self, text: str) -> None:
        """Say a word about what is going on now; throttled like the rest."""
        if self.clock() - self._last_line >= self.interval:
            self._send("running", text)

    def fetched(self, done: int, total: int) -> None:
        """Say how many bytes of a source have come; before the Job is planned."""
        if self._index < 0:
            self._done, self._total = float(done), float(total)
            self.message("fetching the source")

    def asked(self, done: int, total: int, spent: int) -> None:
        """Say how many prompts an external teacher has answered, and what was spent (10⁻¹² US dollars)."""
        self._done, self._total = float(done), float(total)
        words = f"asking the external teacher, {done}/{total}, {dollars(spent)} US dollars spent"
        self._send("running", words) if done == total else self.message(words)

    def fraction(self) -> float:
        """Return the share of the running step that is done, between 0 and 1."""
        return min(1.0, self._done / self._total) if self._total > 0 else 0.0

    def eta_seconds(self) -> float | None:
        """Return the seconds that are left, or None before the work is planned."""
        if not self._estimates or self._index < 0:
            return None
        bias = self._bias()
        later = sum(self._estimates[self._index + 1 :]) * bias
        return later + self._left_here(bias)

    def _bias(self) -> float:
        spent, expected = self._spent, self._expected
        first = self._first or 0.0
        if self._total > first and self._done > first and self._index < len(self._estimates):
            share = (self._done - first) / self._total
            spent += self.clock() - self._started
            expected += self._estimates[self._index] * share
        # What a short step teaches about a long one is little: the plan is believed as if a fifth of it had
        # been seen to hold.
        return (spent + self._belief) / (expected + self._belief) if expected > 0 else 1.0

    def _left_here(self, bias: float) -> float:
        estimate = self._estimates[self._index] if self._index < len(self._estimates) else 0.0
        left = 1.0 - self.fraction()
        first = self._first or 0.0
        worked = self.clock() - self._started
        share = (self._done - first) / self._total if self._total > 0 else 0.0
        by_estimate = estimate * left * bias
        if share <= 0:
            return max(0.0, by_estimate - worked) if self._first is None else by_estimate
        by_speed = worked / share * left
        # The measured speed is believed more the further the step is.
        trust = min(1.0, share / 0.1)
        return trust * by_speed + (1 - trust) * by_estimate

    def _send(self, state: State, message: str) -> None:
        self._last_line = self.clock()
        eta = self.eta_seconds() if state != "failed" else None
        passed = self._passed + (self.clock() - self._started if state in ("running", "started") else 0.0)
        if eta is not None:
            whole = passed + eta
            percent = int(100 * passed / whole) if whole > 0 else 100
            done = self._index + 1 >= len(self._estimates) and state in ("finished", "cached")
            # Never backwards, and 100 only at the end.
            self._percent = 100 if done else min(99, max(self._percent, percent))
        name = self._names[self._index] if 0 <= self._index < len(self._names) else "prepare"
        self.emit(
            ProgressLine(
                job=self.job,
                step=name,
                state=state,
                done=round(self._done, 3),
                total=round(self._total, 3),
                percent=self._percent,
                eta_seconds=None if eta is None else round(eta, 1),
                message=message,
            )
        )
