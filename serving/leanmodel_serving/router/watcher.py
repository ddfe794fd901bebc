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
from collections.abc import Awaitable, Callable, Mapping
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
UNDER_PRESSURE = "under-pressure/"
"""What the names of the second promise's monitors begin with."""
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
        points = [one.policy for one in (decider, snapshot.relaxed) if one is not None and one.asks_lean]
        self._policy = decider.policy if decider is not None and points else None
        self._name = self._policy.name if self._policy is not None else ""
        self._points = {policy.name: policy for policy in points}
        self._tallies = _empty(self._points)
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

    def count(
        self, state: Snapshot, score: float | None, accepted: bool, shadow: Shadow | None, pressure: str = ""
    ) -> None:
        """Count a request that the policy alone decided, and draw whether it is shadowed.

        Args:
            state: settings that the request was decided by.
            score: what the decision was made on.
            accepted: whether the lean answer was kept.
            shadow: the accepted answer; None where it cannot be shadowed.
            pressure: why the second promise was in force for it; each promise is watched apart.
        """
        decider = state.by(pressure)
        name = decider.policy.name if decider is not None else ""
        tally = self._tallies.get(name)
        if tally is None:
            return  # decided by the policy before this one, or by a point that never asks the lean model
        rate = state.settings.watching.shadowing
        if not accepted or shadow is None or self._lots.random() >= rate:
            tally.request(score, accepted=accepted)
        elif len(self._tasks) >= MOST_SHADOWS:
            self._meters.count("leanmodel_shadows", result="skipped")
            tally.request(score, accepted=True)
        else:
            task = asyncio.get_running_loop().create_task(self._shadow(name, shadow, score, rate))
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
        tally = self._tallies.get(name)
        if tally is None:
            return
        # The request counts with its shadow, so that both fall into one period.
        tally.request(score, accepted=True)
        if harm is not None:
            tally.shadow(harm, propensity)

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
        # The chance of ever a false alarm is that of all monitors of both promises together.
        level = watching.false_alarms / max(1, len(self._points))
        terms = watching.shadowing or USUAL_RATE, level, watching.period_seconds
        since = self._looked - LOOK_S if self._looked else now - PIN_S
        counts = {name: tally.counts() for name, tally in self._tallies.items()}
        taken = _Taken(self._points, self._name, terms, counts, self.pins.take_fresh(), since, now)
        self._tallies = _empty(self._points)
        return taken

    def _store(self, taken: _Taken) -> _Stored:
        try:
            # Pins first: storing one twice is the same, counting a request twice is not.
            pins = self._state.pins(taken.fresh, taken.since, taken.now)
        except (sqlite3.Error, OSError) as error:
            return _Stored({}, [], str(error))
        watches: dict[str, Watch] = {}
        rate, level, period = taken.terms
        for name, policy in taken.points.items():
            try:
                watches[name] = self._state.watch(policy, rate, level, taken.counts[name], period, taken.now)
            except (sqlite3.Error, OSError) as error:
                return _Stored(watches, pins, str(error))
        return _Stored(watches, pins)

    def _apply(self, taken: _Taken, stored: _Stored) -> None:
        if stored.error:
            self._trouble(f"the state of the monitors cannot be kept: {stored.error}")
            # Nothing is lost: it goes along the next time.
            self.pins.again(taken.fresh)
            for name, counts in taken.counts.items():
                if name in self._tallies and name not in stored.watches:
                    self._tallies[name].merge(counts)
            return
        self.problem, self._looked = "", taken.now
        self._meters.set("leanmodel_watch_kept", 1.0)
        self.pins.learn(stored.pins)
        if stored.watches and taken.name == self._name:
            self._raise(stored.watches)

    def _raise(self, found: Mapping[str, Watch]) -> None:
        """Take in what the monitors of both promises say: an alarm of either ends both, the world is another one."""
        alarms, names = self._recorded(), set()
        for name, watch in found.items():
            before = "" if name == self._name else UNDER_PRESSURE
            alarms |= {before + monitor: words for monitor, words in watch.alarms().items()}
            names |= {before + monitor for monitor in watch.names()}
        for name, message in alarms.items():
            if name not in self.alarms:
                log.error(
                    "alarm %s: %s; all requests go to the large model until it is proven anew", name, message
                )
        self.alarms = alarms
        for name in {*names, *alarms}:
            self._meters.set("leanmodel_alarm", float(name in alarms), monitor=name)

    def _trouble(self, words: str) -> None:
        self._meters.set("leanmodel_watch_kept", 0.0)
        if words != self.problem:
            log.error("%s", words)
        self.problem = words


@dataclass(frozen=True)
class _Taken:
    """What one look stores, by the points' digests; ``terms``: rate of shadowing, level, seconds of a period."""

    points: dict[str, Policy]
    name: str
    terms: tuple[float, float, float]
    counts: dict[str, Counts]
    fresh: set[bytes]
    since: float
    now: float


@dataclass(frozen=True)
class _Stored:
    """What one look found; ``watches``: those that were stored, by digest."""

    watches: dict[str, Watch]
    pins: list[bytes]
    error: str = ""


def _empty(points: Mapping[str, Policy]) -> dict[str, Tally]:
    found = {}
    for name, policy in points.items():
        scores = policy.scores if isinstance(policy, RoutingPolicy) else None
        found[name] = Tally(() if scores is None else scores.edges)
    return found
