"""Watches the policy's promise: counts requests, shadows some accepted ones, and sends all large on an alarm.

The alarm needs nobody else: the replica that sees it goes all-large at once, and the others when they next look into
the shared state. It ends when another policy comes into force.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from leanmodel_api.policy import Policy
from leanmodel_api.router import Broken
from leanmodel_api.routing_policy import RoutingPolicy
from leanmodel_routing.answers import different
from leanmodel_routing.monitors import Counts, Tally, Watch

from ..metrics import Meters
from .conversations import Pins
from .errors import ApiError
from .snapshot import Snapshot
from .state import PIN_S, StateFile

LOOK_S = 2.0
MOST_SHADOWS = 16
"""Shadows under way at once; a request beyond them has no chance to be drawn, which can only make an alarm rarer."""
USUAL_RATE = 0.02
"""Sizes the bets where nothing is shadowed for now."""
log = logging.getLogger("ray.serve")
Ask = Callable[[], Awaitable[str | None]]
"""Asks the large model; returns its answer's text, None where there was none."""


@dataclass(frozen=True)
class Shadow:
    """One accepted answer that the lot may draw.

    Attributes:
        request_id: name in the log.
        answer: the lean model's text.
        ask: asks the large model the same.
    """

    request_id: str
    answer: str
    ask: Ask


class Watcher:
    """One replica's part of the watch.

    Attributes:
        pins: conversations that stay with the large model.
        alarms: monitors that have raised an alarm over the policy in force, with their words.
        problem: what keeps the state from being kept; empty when nothing does.
    """

    def __init__(
        self,
        state: StateFile,
        snapshot: Snapshot,
        meters: Meters,
        lots: random.Random | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with the settings in force.

        Args:
            state: kept beyond this replica.
            lots: draws what is shadowed; its own by default.
            clock: seconds since the epoch.
        """
        self._state, self._meters, self._clock = state, meters, clock
        self._lots = lots or random.Random()
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked = 0.0
        self.problem = ""
        self.pins = Pins()
        self.alarms: dict[str, str] = {}
        self._enter(snapshot)
        self.look()

    # ------------------------------------------------------------ settings

    def follow(self, snapshot: Snapshot) -> None:
        """Watch the policy of new settings; what was counted for another one is put by first."""
        self.look()
        self._enter(snapshot)
        self.look()

    def _enter(self, snapshot: Snapshot) -> None:
        self._snapshot, decider = snapshot, snapshot.decider
        self._policy = decider.policy if decider is not None and decider.asks_lean else None
        self._name = self._policy.name if self._policy is not None else ""
        self._tally = _empty(self._policy)
        for name in self.alarms:
            self._meters.set("leanmodel_alarm", 0.0, monitor=name)
        self.alarms = self._recorded()

    def _recorded(self) -> dict[str, str]:
        """What the settings say was found broken: it outlives this pod, the state file may not."""
        broken = self._snapshot.settings.broken
        return dict(broken.alarms) if broken is not None and broken.about(self._policy) else {}

    @property
    def broken(self) -> Broken:
        """What is found broken of the policy in force."""
        return Broken(policy=self._name, alarms=self.alarms)

    # ------------------------------------------------------------ requests

    def count(self, state: Snapshot, score: float | None, accepted: bool, shadow: Shadow | None) -> None:
        """Count a request that the policy alone decided, and draw whether it is shadowed.

        Args:
            state: settings that the request was decided by.
            score: what the decision was made on.
            accepted: whether the lean answer was kept.
            shadow: the accepted answer; None where it cannot be shadowed.
        """
        if state.decider is None or state.decider.policy is not self._policy:
            return  # decided by the policy before this one
        tally = self._tally
        rate = state.settings.watching.shadowing
        if not accepted or shadow is None or self._lots.random() >= rate:
            tally.request(score, accepted=accepted)
        elif len(self._tasks) >= MOST_SHADOWS:
            self._meters.count("leanmodel_shadows", result="skipped")
            tally.request(score, accepted=True)
        else:
            task = asyncio.get_running_loop().create_task(self._shadow(self._name, shadow, score, rate))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _shadow(self, name: str, shadow: Shadow, score: float | None, propensity: float) -> None:
        try:
            answer = await shadow.ask()
        except ApiError:
            answer = None
        except Exception:
            log.exception("shadow of request %s failed", shadow.request_id)
            answer = None
        harm = None if answer is None else different(shadow.answer, answer)
        result = "failed" if harm is None else "different" if harm else "same"
        self._meters.count("leanmodel_shadows", result=result)
        log.info(
            "shadow of request %s policy=%s propensity=%g result=%s",
            shadow.request_id, name.removeprefix("sha256:")[:12], propensity, result,
        )  # fmt: skip
        if name != self._name:
            return
        # The request counts with its shadow, so that both fall into one period.
        self._tally.request(score, accepted=True)
        if harm is not None:
            self._tally.shadow(harm, propensity)

    async def settled(self) -> None:
        """Return once no shadow is under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    # ------------------------------------------------------------ looking

    async def tend(self) -> None:
        """Look every few seconds, for ever. The arithmetic is done beside the event loop."""
        while True:
            await asyncio.sleep(LOOK_S)
            taken = self._take()
            self._apply(taken, await asyncio.to_thread(self._store, taken))

    def look(self) -> None:
        """Put by what was counted, take in what others have, and raise the alarm where there is one."""
        taken = self._take()
        self._apply(taken, self._store(taken))

    def _take(self) -> _Taken:
        """Begin a new tally; what was counted until now is to be stored."""
        now = self._clock()
        watching = self._snapshot.settings.watching
        # A bet needs a size even while nothing is shadowed.
        terms = watching.shadowing or USUAL_RATE, watching.false_alarms, watching.period_seconds
        since = self._looked - LOOK_S if self._looked else now - PIN_S
        taken = _Taken(
            self._policy, self._name, terms, self._tally.counts(), self.pins.take_fresh(), since, now
        )
        self._tally = _empty(self._policy)
        return taken

    def _store(self, taken: _Taken) -> _Stored:
        try:
            # Pins first: storing one twice is the same, counting a request twice is not.
            pins = self._state.pins(taken.fresh, taken.since, taken.now)
            watch = None
            if taken.policy is not None:
                rate, level, period = taken.terms
                watch = self._state.watch(taken.policy, rate, level, taken.counts, period, taken.now)
            return _Stored(watch, pins)
        except (sqlite3.Error, OSError) as error:
            return _Stored(None, [], str(error))

    def _apply(self, taken: _Taken, stored: _Stored) -> None:
        if stored.error:
            self._trouble(f"the state of the monitors cannot be kept: {stored.error}")
            # Nothing is lost: it goes along the next time.
            self.pins.again(taken.fresh)
            if taken.name == self._name:
                self._tally.merge(taken.counts)
            return
        self.problem, self._looked = "", taken.now
        self._meters.set("leanmodel_watch_kept", 1.0)
        self.pins.learn(stored.pins)
        if stored.watch is not None and taken.name == self._name:
            self._raise(stored.watch)

    def _raise(self, found: Watch) -> None:
        alarms = {**self._recorded(), **found.alarms()}
        for name, message in alarms.items():
            if name not in self.alarms:
                log.error(
                    "alarm %s: %s; all requests go to the large model until it is proven anew", name, message
                )
        self.alarms = alarms
        for name in {*found.names(), *alarms}:
            self._meters.set("leanmodel_alarm", float(name in alarms), monitor=name)

    def _trouble(self, words: str) -> None:
        self._meters.set("leanmodel_watch_kept", 0.0)
        if words != self.problem:
            log.error("%s", words)
        self.problem = words


@dataclass(frozen=True)
class _Taken:
    """What one look stores; ``terms``: rate of shadowing, level, seconds of a period."""

    policy: Policy | None
    name: str
    terms: tuple[float, float, float]
    counts: Counts
    fresh: set[bytes]
    since: float
    now: float


@dataclass(frozen=True)
class _Stored:
    """What one look found."""

    watch: Watch | None
    pins: list[bytes]
    error: str = ""


def _empty(policy: Policy | None) -> Tally:
    scores = policy.scores if isinstance(policy, RoutingPolicy) else None
    return Tally(() if scores is None else scores.edges)
