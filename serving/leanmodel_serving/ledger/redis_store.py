"""The ledger in a Redis: for all replicas of a router, whichever machines they are on.

The books do the arithmetic, as they do for the file; Redis keeps the numbers as text, since its scripts count in floats
that hold no nano-dollars beyond nine million dollars. A batch is read in one transaction together with a version, worked
out, and written by a script that does nothing where the version is another one by then: another process was faster, and
the batch is worked out anew. Windows expire by themselves; what a dead process held lapses with its lease.

An answer to the writing script may get lost with the connection. So each batch has a token, written along with it: the
next batch looks first whether it is there. What was settled then is not settled twice, and what was reserved, of which
nobody was told, is given back.
"""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from leanmodel_api.ledger import RedisAt

from .books import Books, Hold, Line, Place, start
from .buckets import Bucket
from .file import (
    DAYS_KEPT_S,
    HOURS_KEPT_S,
    LEASE_S,
    WAIT_S,
    Look,
    Operation,
    Release,
    Reserve,
    Result,
    Settle,
    done,
)
from .keeper import LedgerDownError

log = logging.getLogger("ray.serve")
KNOWN_S = 86_400
"""How long a batch's token is kept: a process that cannot reach the Redis for longer counts a settlement twice."""
_KEPT_S = {"hour": HOURS_KEPT_S, "day": DAYS_KEPT_S}
_WRITE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for _, command in ipairs(cjson.decode(ARGV[2])) do redis.call(unpack(command)) end
return 1
"""


class _Secret(CredentialProvider):
    """User and password, read anew for each connection: a changed Secret needs no restart."""

    def __init__(self, user: str | None, file: Path | None) -> None:
        self._user, self._file = user, file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._file.read_text(encoding="utf-8").strip() if self._file is not None else ""
        except OSError as error:
            raise redis.ConnectionError(f"its password cannot be read: {error.strerror}") from None
        return (self._user, password) if self._user else (password,)


@dataclass
class _Needs:
    """What a batch's arithmetic looks at."""

    places: set[Place] = field(default_factory=set)
    holds: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, batch: Iterable[Operation]) -> _Needs:
        found = cls()
        for operation in batch:
            if isinstance(operation, Reserve | Settle | Release):
                found.hold(operation.hold)
            if isinstance(operation, Reserve | Settle | Look):
                limits = operation.limits + (operation.shown if isinstance(operation, Reserve) else ())
                found.places |= {
                    Place(limit.account, limit.span, start(limit.span, operation.now)) for limit in limits
                }
        return found

    def hold(self, hold: Hold) -> None:
        self.places |= set(hold.places())
        self.holds.add(hold.id)
        if hold.key:
            self.keys.add(hold.key)


@dataclass
class _Seen:
    """What the Redis had at one moment."""

    version: str
    leases: dict[str, float]
    lines: dict[Place, Line]
    holds: dict[str, Hold]
    active: dict[str, int]
    buckets: dict[tuple[str, str], Bucket]

    def books(self) -> Books:
        """The books to work on: their lines are their own, so that what has changed can be told."""
        return Books(
            lambda place: replace(self.lines[place]) if place in self.lines else None,
            self.holds.get,
            lambda key, kind: self.buckets.get((key, kind)),
            lambda key: self.active.get(key, 0),
        )


class RedisLedger:
    """One process's hand on it. It connects when it is first needed, and again when it must."""

    lasting = True

    def __init__(self, where: RedisAt) -> None:
        """Say where it is; nothing is asked yet."""
        host, _, port = where.address.rpartition(":")
        file = Path(where.password_file) if where.password_file else None
        self._db = redis.Redis(
            host=host, port=int(port), db=where.database, ssl=where.tls, decode_responses=True,
            credential_provider=_Secret(where.user, file) if where.user or file is not None else None,
            socket_timeout=WAIT_S, socket_connect_timeout=WAIT_S,
            # A try of its own could write a batch twice.
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        # In braces: of a cluster all of it lies on one shard.
        self._prefix = f"{{{where.prefix}}}"
        self._write = self._db.register_script(_WRITE)
        self._unsure: tuple[str, Sequence[Operation]] | None = None

    def close(self) -> None:
        """Close the connections."""
        self._db.close()

    def apply(self, batch: Sequence[Operation], owner: str, now: float) -> list[Result]:
        """Carry out operations in their order, all or none; see :class:`.keeper.Keeper`.

        Raises:
            LedgerDownError: it cannot be reached in time.
        """
        try:
            before, dropped = self._resolved(batch, owner)
            left = [operation for operation in batch if id(operation) not in dropped]
            results = iter(self._carried_out([*before, *left], owner, now)[len(before) :])
        except (redis.RedisError, OSError) as error:
            raise LedgerDownError(f"Redis: {error}") from error
        return [[] if id(operation) in dropped else next(results) for operation in batch]

    def sweep(self, now: float) -> None:
        """Forget full buckets of more than eight days ago; windows expire by themselves."""
        try:
            seen = self._read(_Needs())
            gone = []
            for kind in ("requests", "tokens"):
                for key, text in self._all("bucket", kind).items():
                    level, at = map(float, text.split())
                    if at < now - HOURS_KEPT_S and level >= 0:
                        gone.append(["HDEL", self._key("bucket", kind), key])
            if gone:  # where somebody has written meanwhile, the next time
                self._commit(seen.version, uuid.uuid4().hex, gone)
        except (redis.RedisError, OSError) as error:
            raise LedgerDownError(f"Redis: {error}") from error

    def spent_ever(self) -> dict[str, Line]:
        """Return all that was ever spent, by account; the LeanModel's is the empty one.

        Raises:
            LedgerDownError: it cannot be reached.
        """
        try:
            found = self._all("line", "ever", "0")
        except (redis.RedisError, OSError) as error:
            raise LedgerDownError(f"Redis: {error}") from error
        return {account: _line(text) for account, text in found.items()}

    # ---------------------------------------------------------------- a batch

    def _resolved(self, batch: Sequence[Operation], owner: str) -> tuple[list[Operation], set[int]]:
        """Find out what became of a batch whose answer was lost: what is to be done first, and what is done already."""
        if self._unsure is None:
            return [], set()
        token, asked = self._unsure
        known = self._db.get(self._key("done", owner)) == token
        self._unsure = None
        if not known:
            return [], set()
        log.info("ledger: a batch whose answer was lost had been written")
        again = {id(operation) for operation in asked} & {id(operation) for operation in batch}
        return [Release(one.hold) for one in asked if isinstance(one, Reserve)], again

    def _carried_out(self, batch: Sequence[Operation], owner: str, now: float) -> list[Result]:
        needs, until, everything = _Needs.of(batch), time.monotonic() + WAIT_S, False
        while True:
            seen = self._read(needs, all_holds=everything)
            lapsed = {other for other, ends in seen.leases.items() if ends < now and other != owner}
            freed = [hold for hold in seen.holds.values() if hold.owner in lapsed]
            if lapsed and not (everything and all(set(hold.places()) <= needs.places for hold in freed)):
                everything = True
                for hold in freed:
                    needs.hold(hold)
                continue
            books = seen.books()
            for hold in freed:
                books.release(hold)
            results = [done(books, operation) for operation in batch]
            if self._written(books, seen, batch, owner, lapsed, now):
                if freed:
                    log.warning("ledger: %d reservations of processes that ended have lapsed", len(freed))
                return results
            if time.monotonic() > until:
                raise redis.RedisError("other processes write all the time")
            time.sleep(random.uniform(0, 0.005))

    def _read(self, needs: _Needs, all_holds: bool = False) -> _Seen:
        """Read what is needed, all of one moment."""
        pipe = self._db.pipeline(transaction=True)
        pipe.get(self._key("version"))
        pipe.hgetall(self._key("lease"))
        windows: dict[tuple[str, int], list[Place]] = {}
        for place in needs.places:
            windows.setdefault((place.span, place.start), []).append(place)
        for (span, begun), places in windows.items():
            pipe.hmget(self._key("line", span, str(begun)), [place.account for place in places])
        names, keys = sorted(needs.holds), sorted(needs.keys)
        if all_holds:
            pipe.hgetall(self._key("hold"))
        elif names:
            pipe.hmget(self._key("hold"), names)
        if keys:
            for part in (("active",), ("bucket", "requests"), ("bucket", "tokens")):
                pipe.hmget(self._key(*part), keys)
        found = iter(pipe.execute())
        version, leases = next(found) or "", {name: float(ends) for name, ends in next(found).items()}
        lines = {
            place: _line(text)
            for places in windows.values()
            for place, text in zip(places, next(found), strict=True)
            if text is not None
        }
        holds: dict[str, str] = {}
        if all_holds:
            holds = next(found)
        elif names:
            holds = _present(names, next(found))
        active, requests, tokens = (_present(keys, next(found)) if keys else {} for _ in range(3))
        buckets = {(key, "requests"): _bucket(text) for key, text in requests.items()}
        buckets |= {(key, "tokens"): _bucket(text) for key, text in tokens.items()}
        return _Seen(
            version, leases, lines, {name: Hold(name, *json.loads(text)) for name, text in holds.items()},
            {key: int(text) for key, text in active.items()}, buckets,
        )  # fmt: skip

    def _written(
        self, books: Books, seen: _Seen, batch: Sequence[Operation], owner: str, lapsed: set[str], now: float
    ) -> bool:
        """Write what has changed; return whether nobody else has written since it was read."""
        token = uuid.uuid4().hex
        commands: list[list[str]] = [["HSET", self._key("lease"), owner, repr(now + LEASE_S)]]
        commands += [["HDEL", self._key("lease"), other] for other in sorted(lapsed)]
        ends: dict[str, int] = {}
        for place, line in books.lines.items():
            if line == seen.lines.get(place, Line()):
                continue
            key = self._key("line", place.span, str(place.start))
            commands.append(["HSET", key, place.account, f"{line.spent} {line.reserved} {line.requests}"])
            if place.span in _KEPT_S:
                ends[key] = place.start + _KEPT_S[place.span]
        commands += [["EXPIREAT", key, str(at)] for key, at in ends.items()]
        for name, hold in books.holds.items():
            if hold is None:
                commands.append(["HDEL", self._key("hold"), name])
            elif hold != seen.holds.get(name):
                commands.append(["HSET", self._key("hold"), name, json.dumps(astuple(hold)[1:])])
        for account, count in books.active.items():
            commands.append(
                ["HSET", self._key("active"), account, str(count)] if count
                else ["HDEL", self._key("active"), account]
            )  # fmt: skip
        for (account, kind), bucket in books.buckets.items():
            commands.append(["HSET", self._key("bucket", kind), account, f"{bucket.level!r} {bucket.at!r}"])
        commands.append(["SET", self._key("done", owner), token, "EX", str(KNOWN_S)])
        try:
            return self._commit(seen.version, token, commands)
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            self._unsure = token, batch
            raise

    def _commit(self, version: str, token: str, commands: list[list[str]]) -> bool:
        commands = [*commands, ["SET", self._key("version"), token]]
        return bool(self._write(keys=[self._key("version")], args=[version, json.dumps(commands)]))

    def _all(self, *parts: str) -> dict[str, str]:
        # Decoded, as the connection was told; the package's types cannot know.
        return {str(name): str(value) for name, value in self._db.hgetall(self._key(*parts)).items()}

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


def _present(names: Sequence[str], values: Sequence[str | None]) -> dict[str, str]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _line(text: str) -> Line:
    return Line(*map(int, text.split()))


def _bucket(text: str) -> Bucket:
    return Bucket(*map(float, text.split()))
