"""Leaves a backend that fails alone for a while: a state machine that reads no clock, and its holder that does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from leanmodel_api.router import Resilience

from ..metrics import Meters
from .errors import EXTERNAL

log = logging.getLogger("ray.serve")
Phase = Literal["closed", "half-open", "open"]
LEVELS: dict[Phase, float] = {"closed": 0.0, "half-open": 1.0, "open": 2.0}
"""As the metric has them."""


@dataclass(frozen=True)
class State:
    """Where a breaker stands.

    Attributes:
        phase: closed lets all through; open none; half-open has let one through and waits for how it went.
        failures: in a row, while closed.
        until: second until which nobody else is let through, unless what is under way goes well before.
    """

    phase: Phase = "closed"
    failures: int = 0
    until: float = 0.0


CLOSED = State()


def ask(state: State, rules: Resilience, now: float) -> tuple[bool, State]:
    """Return whether a request is let through at ``now``, and the state after it.

    One that is let through half-open and is never heard of again holds the place for ``open_seconds``.
    """
    if state.phase == "closed":
        return True, state
    if now < state.until:
        return False, state
    return True, State("half-open", until=now + rules.open_seconds)


def saw(state: State, rules: Resilience, ok: bool, now: float) -> State:
    """Return the state after a request that was let through has gone well or not.

    What was sent before it opened and ends while it is open tells nothing of how the backend is now.
    """
    if state.phase == "open":
        return state
    if ok:
        return CLOSED
    failures = state.failures + 1
    if state.phase == "half-open" or failures >= rules.failures:
        return State("open", until=now + rules.open_seconds)
    return replace(state, failures=failures)


class Breaker:
    """A backend's breaker."""

    def __init__(
        self,
        rules: Resilience | None = None,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[Phase], None] = lambda phase: None,
    ) -> None:
        """Start closed.

        Args:
            rules: when it opens and for how long.
            clock: seconds.
            tell: is told of every new phase.
        """
        self.rules, self._clock, self._tell = rules or Resilience(), clock, tell
        self.state = CLOSED

    def allows(self) -> bool:
        """Say whether to ask; who is told yes reports by :meth:`saw`."""
        allowed, following = ask(self.state, self.rules, self._clock())
        self._enter(following)
        return allowed

    def saw(self, ok: bool) -> None:
        """Take in how a request went."""
        self._enter(saw(self.state, self.rules, ok, self._clock()))

    def rests(self) -> float:
        """Return the seconds until it may let somebody through; 0 when it may now."""
        return 0.0 if self.state.phase == "closed" else max(0.0, self.state.until - self._clock())

    def _enter(self, following: State) -> None:
        before, self.state = self.state, following
        if before.phase != following.phase:
            self._tell(following.phase)


class Breakers:
    """The breakers of the lean model, the large one and the external provider; a metric shows where each stands."""

    def __init__(self, rules: Resilience | None, meters: Meters) -> None:
        """Start with all of them closed."""
        self._rules, self._meters = rules, meters
        self.lean, self.large, self.external = (self._made(role) for role in ("lean", "large", EXTERNAL))

    def _made(self, role: str) -> Breaker:
        def tell(phase: Phase) -> None:
            log.warning("breaker of %s: %s", role, phase)
            self._meters.set("leanmodel_backend_state", LEVELS[phase], role=role)

        self._meters.set("leanmodel_backend_state", LEVELS["closed"], role=role)
        return Breaker(self._rules, tell=tell)


class RetryBudget:
    """Second tries are a share of the requests, so that they cannot make an outage worse.

    A token bucket, as Finagle's ``RetryBudget`` has it: each request puts ``share`` of a token in, a second try takes
    one out; of ``n`` requests at most ``reserve + share * n`` are tried again.
    """

    def __init__(self, reserve: float = 10.0) -> None:
        """Start with ``reserve`` tokens, which is also the most there can be."""
        self._most = self._tokens = reserve

    def earned(self, share: float) -> None:
        """Take in a request."""
        self._tokens = min(self._most, self._tokens + share)

    def take(self, share: float) -> bool:
        """Say whether a request may be tried again; at a share of 0 none may."""
        if share <= 0 or self._tokens < 1:
            return False
        self._tokens -= 1
        return True
