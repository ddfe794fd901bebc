"""The ledger's arithmetic, in whole nano-dollars. Pure: no storage, no clock.

A reservation is made before a request is answered, for the most that it may cost, and settled with what it did cost.
Both belong to the hour and the day of the reservation, so that what is spent and what is reserved in a window never
come to more than its limit, however requests cross and whenever they end. Nano-dollars, because an answer of a small
model costs less than a micro-dollar, and sums of rounded costs would be none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Literal, NamedTuple

from .buckets import Bucket, full

Span = Literal["hour", "day", "ever"]
LENGTH: dict[Span, int] = {"hour": 3600, "day": 86400}
MODEL = ""
"""The account of the LeanModel as a whole; the others are those of its keys."""
SOON_S = 1


class Place(NamedTuple):
    """Where a line stands: whose, of which length, from which second since the epoch on."""

    account: str
    span: Span
    start: int


@dataclass
class Line:
    """Nano-dollars of one account in one window, and how many requests used something."""

    spent: int = 0
    reserved: int = 0
    requests: int = 0


@dataclass(frozen=True)
class Limit:
    """The most that an account may spend in each hour, or each day, in nano-dollars.

    Attributes:
        lenient: whether the lean model may answer past it.
    """

    account: str
    span: Literal["hour", "day"]
    nano: int
    lenient: bool = False


@dataclass(frozen=True)
class Rates:
    """How fast a key may ask: requests and tokens a minute, requests under way."""

    requests: int | None = None
    tokens: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Hold:
    """A reservation.

    Attributes:
        id: its name, never used again.
        owner: process that made it.
        key: account of a key; empty where there is none.
        at: when it was made, in whole seconds since the epoch.
        nano: what is held.
        tokens: what was taken out of the key's bucket of tokens.
    """

    id: str
    owner: str
    key: str
    at: int
    nano: int
    tokens: int = 0

    def places(self) -> tuple[Place, ...]:
        """Return the lines that it stands in."""
        return _places(self.key, self.at)


@dataclass(frozen=True)
class Left:
    """What one limit leaves: nano-dollars, never below 0, until its window ends in so many seconds."""

    limit: Limit
    nano: int
    ends_in: int


@dataclass(frozen=True)
class Refusal:
    """Why a reservation was not made.

    Attributes:
        why: the kind of limit.
        limit: of a budget; None for the others.
        retry_after: whole seconds until it may be made.
        never: whether even an unspent window had not room for it.
    """

    why: Literal["budget", "requests", "tokens", "concurrency"]
    retry_after: int
    limit: Limit | None = None
    never: bool = False


def start(span: Span, now: float) -> int:
    """Return when the window began that a time lies in: hours and days by UTC, 0 for all of time."""
    length = LENGTH.get(span)
    return 0 if length is None else int(now // length) * length


@lru_cache(maxsize=1024)
def _places(key: str, at: int) -> tuple[Place, ...]:
    accounts = [MODEL, key] if key else [MODEL]
    return tuple(Place(account, span, start(span, at)) for account in accounts for span in (*LENGTH, "ever"))


@dataclass
class Books:
    """Lines, holds and buckets as far as they are needed; what is missing is fetched."""

    line_of: Callable[[Place], Line | None] = lambda place: None
    hold_of: Callable[[str], Hold | None] = lambda name: None
    bucket_of: Callable[[str, str], Bucket | None] = lambda key, kind: None
    active_of: Callable[[str], int] = lambda key: 0
    lines: dict[Place, Line] = field(default_factory=dict)
    holds: dict[str, Hold | None] = field(default_factory=dict)
    buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)
    active: dict[str, int] = field(default_factory=dict)

    # ---------------------------------------------------------------- looking

    def line(self, place: Place) -> Line:
        """Return a line, empty where nothing was ever written."""
        if place not in self.lines:
            self.lines[place] = self.line_of(place) or Line()
        return self.lines[place]

    def left(self, limits: tuple[Limit, ...], now: float) -> list[Left]:
        """Return what each limit leaves at a time."""
        found = []
        for limit in limits:
            begun = start(limit.span, now)
            line = self.line(Place(limit.account, limit.span, begun))
            free = limit.nano - line.spent - line.reserved
            found.append(Left(limit, max(0, free), ceil(begun + LENGTH[limit.span] - now)))
        return found

    # ---------------------------------------------------------------- a request

    def reserve(
        self, hold: Hold, limits: tuple[Limit, ...], rates: Rates | None, now: float
    ) -> Refusal | None:
        """Make a reservation, or return why not; then nothing is held.

        Args:
            limits: budgets that it must fit into.
            rates: how fast its key may ask; None where it may as fast as it likes.
            now: seconds since the epoch, in the hold's own second.
        """
        refused = self._too_fast(hold, rates, now) if rates is not None else None
        if refused is None:
            refused = self._too_dear(hold, limits, now)
        if refused is not None:
            return refused
        for kind, per_minute, amount in _asked(hold, rates):
            self._change(hold.key, kind, per_minute, now, amount)
        for place in hold.places():
            self.line(place).reserved += hold.nano
        self.holds[hold.id] = hold
        if hold.key:
            self.active[hold.key] = self._active(hold.key) + 1
        return None

    def settle(self, hold: Hold, nano: int, tokens: int, tokens_per_minute: int | None = None) -> None:
        """End a reservation with what the request cost; also one that has lapsed meanwhile.

        Args:
            nano: the cost; more than was held is counted all the same, it was spent.
            tokens: what the request used; the difference to what was taken goes back into the key's bucket.
            tokens_per_minute: that bucket's size; None where it has none.
        """
        for place in hold.places():
            line = self.line(place)
            line.spent += nano
            line.requests += bool(nano or tokens)
        self.release(hold)
        if tokens_per_minute is not None:
            self._change(hold.key, "tokens", tokens_per_minute, hold.at, tokens - hold.tokens)

    def release(self, hold: Hold) -> None:
        """Give back what is held; a second time nothing happens."""
        if self._held(hold.id) is None:
            return
        self.holds[hold.id] = None
        for place in hold.places():
            self.line(place).reserved -= hold.nano
        if hold.key:
            self.active[hold.key] = self._active(hold.key) - 1

    # ---------------------------------------------------------------- parts

    def _held(self, name: str) -> Hold | None:
        if name not in self.holds:
            self.holds[name] = self.hold_of(name)
        return self.holds[name]

    def _active(self, key: str) -> int:
        if key not in self.active:
            self.active[key] = self.active_of(key)
        return self.active[key]

    def _bucket(self, key: str, kind: str, per_minute: int, now: float) -> Bucket:
        if (key, kind) not in self.buckets:
            self.buckets[key, kind] = self.bucket_of(key, kind) or full(per_minute, now)
        self.buckets[key, kind] = self.buckets[key, kind].filled(per_minute, now)
        return self.buckets[key, kind]

    def _change(self, key: str, kind: str, per_minute: int, now: float, amount: float) -> None:
        self.buckets[key, kind] = self._bucket(key, kind, per_minute, now).taken(amount)

    def _too_fast(self, hold: Hold, rates: Rates, now: float) -> Refusal | None:
        if rates.concurrency is not None and self._active(hold.key) >= rates.concurrency:
            return Refusal("concurrency", SOON_S)
        for kind, per_minute, amount in _asked(hold, rates):
            wait = self._bucket(hold.key, kind, per_minute, now).wait(amount, per_minute)
            if wait > 0:
                return Refusal(kind, ceil(wait))
        return None

    def _too_dear(self, hold: Hold, limits: tuple[Limit, ...], now: float) -> Refusal | None:
        """Return the refusal of the strictest limit without room, of the one whose window ends last among equals."""
        found: tuple[tuple[bool, bool, int], Refusal] | None = None
        for left in self.left(limits, now):
            if hold.nano <= left.nano:
                continue
            line = self.line(Place(left.limit.account, left.limit.span, start(left.limit.span, now)))
            # What others only hold comes free with their answers.
            soon = line.spent + hold.nano <= left.limit.nano
            never = hold.nano > left.limit.nano
            refused = Refusal("budget", SOON_S if soon else left.ends_in, left.limit, never)
            order = (not left.limit.lenient, never, refused.retry_after)
            if found is None or order > found[0]:
                found = order, refused
        return None if found is None else found[1]


def _asked(hold: Hold, rates: Rates | None) -> list[tuple[Literal["requests", "tokens"], int, int]]:
    """Return (kind, size of the bucket, what the request takes) of each bucket that its key has."""
    found: list[tuple[Literal["requests", "tokens"], int, int]] = []
    if rates is not None and rates.requests is not None:
        found.append(("requests", rates.requests, 1))
    if rates is not None and rates.tokens is not None:
        found.append(("tokens", rates.tokens, hold.tokens))
    return found
