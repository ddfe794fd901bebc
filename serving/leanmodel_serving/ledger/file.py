"""The ledger on disk: one SQLite file for all replicas of a router and for those after them.

A batch of operations is one transaction: it loads the lines that they need, lets the books do the arithmetic, and
writes what has changed. What was loaded is good until SQLite says that somebody else has written. What a killed process has committed stays (write-ahead log); what it held lapses with its
lease. Only a crash of the whole machine can lose the last commits, since they are not flushed one by one.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .books import Books, Hold, Left, Limit, Line, Place, Rates, Refusal
from .buckets import Bucket

log = logging.getLogger("ray.serve")
LEDGER = "ledger.db"
WAIT_S = 5.0
LEASE_S = 30.0
"""What a process holds lapses when it has not renewed its lease for so long."""
RENEWED_S = 1.0
"""The lease is renewed, and others' ended ones are looked for, no more often."""
MOST_LOADED = 4096
"""Lines and buckets that are remembered; more are loaded anew."""
HOURS_KEPT_S, DAYS_KEPT_S = 8 * 86400, 400 * 86400
OPENINGS = 5
_TABLES = """
CREATE TABLE IF NOT EXISTS line (account TEXT, span TEXT, start INTEGER, spent INTEGER NOT NULL,
  reserved INTEGER NOT NULL, requests INTEGER NOT NULL, PRIMARY KEY (account, span, start)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hold (id TEXT PRIMARY KEY, owner TEXT NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL,
  nano INTEGER NOT NULL, tokens INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hold_owner ON hold (owner);
CREATE INDEX IF NOT EXISTS hold_key ON hold (key);
CREATE TABLE IF NOT EXISTS bucket (key TEXT, kind TEXT, level REAL NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (key, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (owner TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Reserve:
    """Reserve within ``limits``; the answer is what is left of ``shown`` afterwards, or a refusal."""

    hold: Hold
    limits: tuple[Limit, ...]
    shown: tuple[Limit, ...]
    rates: Rates | None
    now: float


@dataclass(frozen=True)
class Settle:
    """Settle at a cost; the answer is what is left of the limits afterwards."""

    hold: Hold
    nano: int
    tokens: int
    limits: tuple[Limit, ...]
    tokens_per_minute: int | None
    now: float


@dataclass(frozen=True)
class Release:
    """Give back what is held: nothing was spent."""

    hold: Hold


@dataclass(frozen=True)
class Look:
    """Return what limits leave now."""

    limits: tuple[Limit, ...]
    now: float


Operation = Reserve | Settle | Release | Look
Result = list[Left] | Refusal


class LedgerFile:
    """Opened once per process; used from one thread."""

    def __init__(self, path: Path | None) -> None:
        """Open the file, made where there is none; None keeps the ledger in memory.

        Raises:
            sqlite3.Error: it is no such file, or cannot be written.
            OSError: its folder cannot be made.
        """
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        self._db = sqlite3.connect(
            path or ":memory:", timeout=WAIT_S, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        # The log is flushed at checkpoints: commits survive the process, a power cut may take the last ones.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_TABLES)
        self.lasting = path is not None
        self._books = Books(self._line, self._hold, self._bucket, self._active)
        self._version: int | None = None
        self._renewed: tuple[str, float] | None = None
        # As they stand in the file.
        self._lines: dict[Place, Line] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._held: set[str] = set()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def apply(self, batch: Sequence[Operation], owner: str, now: float) -> list[Result]:
        """Carry out operations in their order, all or none; return their answers.

        Args:
            batch: what to do.
            owner: the process; its lease is renewed, and what lapsed of others is given back.
            now: seconds since the epoch.

        Raises:
            sqlite3.Error: nothing was done.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._remember()
            self._lease(owner, now)
            results = [done(self._books, operation) for operation in batch]
            self._write()
            self._db.execute("COMMIT")
        except BaseException:
            self._version = self._renewed = None  # what the books hold now is not what the file does
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return results

    def sweep(self, now: float) -> None:
        """Forget hours of more than eight days ago, days of more than 400, and full buckets."""
        self._version = None
        self._db.execute(
            "DELETE FROM line WHERE reserved = 0 AND ((span = 'hour' AND start < ?) OR (span = 'day' AND start < ?))",
            (now - HOURS_KEPT_S, now - DAYS_KEPT_S),
        )
        self._db.execute("DELETE FROM bucket WHERE at < ? AND level >= 0", (now - HOURS_KEPT_S,))

    # ---------------------------------------------------------------- reading

    def _remember(self) -> None:
        """Begin with the books of the last transaction, or with empty ones where somebody else has written since."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != self._version or len(self._lines) + len(self._buckets) > MOST_LOADED:
            self._books = Books(self._line, self._hold, self._bucket, self._active)
            self._lines, self._buckets, self._held = {}, {}, set()
        self._version = version

    def _line(self, place: Place) -> Line | None:
        row = self._db.execute(
            "SELECT spent, reserved, requests FROM line WHERE account = ? AND span = ? AND start = ?",
            (place.account, place.span, place.start),
        ).fetchone()
        if row:
            self._lines[place] = Line(*row)
        return Line(*row) if row else None

    def _hold(self, name: str) -> Hold | None:
        row = self._db.execute(
            "SELECT id, owner, key, at, nano, tokens FROM hold WHERE id = ?", (name,)
        ).fetchone()
        if row:
            self._held.add(name)
        return Hold(*row) if row else None

    def _bucket(self, key: str, kind: str) -> Bucket | None:
        row = self._db.execute(
            "SELECT level, at FROM bucket WHERE key = ? AND kind = ?", (key, kind)
        ).fetchone()
        return Bucket(*row) if row else None

    def _active(self, key: str) -> int:
        return int(self._db.execute("SELECT count(*) FROM hold WHERE key = ?", (key,)).fetchone()[0])

    # ---------------------------------------------------------------- writing

    def _lease(self, owner: str, now: float) -> None:
        """Renew our lease, and give back what those hold whose lease has run out."""
        if (
            self._renewed is not None
            and self._renewed[0] == owner
            and 0 <= now - self._renewed[1] < RENEWED_S
        ):
            return
        self._renewed = owner, now
        self._db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?)", (owner, now + LEASE_S))
        ended = self._db.execute("SELECT owner FROM lease WHERE until < ?", (now,)).fetchall()
        for (other,) in ended:
            held = self._db.execute(
                "SELECT id, owner, key, at, nano, tokens FROM hold WHERE owner = ?", (other,)
            ).fetchall()
            for row in held:
                self._books.release(Hold(*row))
            if held:
                log.warning("ledger: %d reservations of a process that ended have lapsed", len(held))
            self._db.execute("DELETE FROM lease WHERE owner = ?", (other,))

    def _write(self) -> None:
        """Write what differs from the file."""
        books = self._books
        lines = {place: line for place, line in books.lines.items() if line != self._lines.get(place, Line())}
        self._db.executemany(
            "INSERT OR REPLACE INTO line VALUES (?, ?, ?, ?, ?, ?)",
            [(*place, line.spent, line.reserved, line.requests) for place, line in lines.items()],
        )
        self._lines.update((place, replace(line)) for place, line in lines.items())
        made = [hold for name, hold in books.holds.items() if hold is not None and name not in self._held]
        self._db.executemany(
            "INSERT OR REPLACE INTO hold VALUES (?, ?, ?, ?, ?, ?)",
            [(one.id, one.owner, one.key, one.at, one.nano, one.tokens) for one in made],
        )
        self._held.update(one.id for one in made)
        gone = [name for name, hold in books.holds.items() if hold is None]
        self._db.executemany(
            "DELETE FROM hold WHERE id = ?", [(name,) for name in gone if name in self._held]
        )
        for name in gone:
            del books.holds[name]
        self._held.difference_update(gone)
        filled = {
            key: bucket for key, bucket in books.buckets.items() if bucket is not self._buckets.get(key)
        }
        self._db.executemany(
            "INSERT OR REPLACE INTO bucket VALUES (?, ?, ?, ?)",
            [(*key, bucket.level, bucket.at) for key, bucket in filled.items()],
        )
        self._buckets.update(filled)


def done(books: Books, operation: Operation) -> Result:
    """Carry an operation out on the books, and return its answer."""
    if isinstance(operation, Reserve):
        refused = books.reserve(operation.hold, operation.limits, operation.rates, operation.now)
        return refused or books.left(operation.shown, operation.now)
    if isinstance(operation, Settle):
        books.settle(operation.hold, operation.nano, operation.tokens, operation.tokens_per_minute)
        return books.left(operation.limits, operation.now)
    if isinstance(operation, Release):
        books.release(operation.hold)
        return []
    return books.left(operation.limits, operation.now)


def ledger_beside(state_file: str | None) -> Path | None:
    """Return where the ledger lies: beside the router's state, so that neither goes when the other is put aside."""
    return Path(state_file).with_name(LEDGER) if state_file else None


def opened(path: Path | None) -> LedgerFile:
    """Return the ledger in a file; what is no such file is put aside, and a new one is begun.

    Where nothing can be written it is kept in memory, for this process alone: said in the log and by a metric.
    """
    for _ in range(OPENINGS):
        try:
            return LedgerFile(path)
        except (
            sqlite3.OperationalError
        ) as error:  # busy with the other replicas' beginning, or not to be written
            log.error("the ledger in %s cannot be opened: %s", path, error)
            time.sleep(0.2)
        except (OSError, sqlite3.Error) as error:
            log.error("the ledger in %s cannot be read: %s", path, error)
            try:
                if path is not None:
                    path.replace(path.with_name(f"{path.name}.broken"))
            except OSError:
                break
    return LedgerFile(None)


def spent_ever(path: Path) -> dict[str, Line]:
    """Return all that was ever spent, by account, out of a ledger that others keep; the LeanModel's is the empty one.

    Raises:
        sqlite3.Error: the file is no ledger.
    """
    # Not read-only: of a log that a killed process left, somebody has to make the index.
    db = sqlite3.connect(path, timeout=WAIT_S)
    try:
        rows = db.execute(
            "SELECT account, spent, reserved, requests FROM line WHERE span = 'ever'"
        ).fetchall()
    finally:
        db.close()
    return {row[0]: Line(*row[1:]) for row in rows}
