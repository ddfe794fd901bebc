"""What a router must not forget when it is replaced: the monitors' state and the pinned conversations.

One SQLite file for all replicas of a router and for those after them. A replica adds what it has counted to the tally
of the running period; whichever finds the period over folds the whole tally into the monitors, so that a period is
one period, however many replicas counted in it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leanmodel_api.policy import Policy
from leanmodel_routing.monitors import Counts, Tally, Watch
from leanmodel_routing.monitors.watch import ALL

log = logging.getLogger("ray.serve")
WAIT_S = 5.0
PIN_S = 24 * 3600.0
_TABLES = """
CREATE TABLE IF NOT EXISTS watch (policy TEXT PRIMARY KEY, state TEXT NOT NULL, pending TEXT NOT NULL, since REAL NOT NULL);
CREATE TABLE IF NOT EXISTS pin (conversation BLOB PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pin_at ON pin (at);
"""


class StateFile:
    """Opened once per replica; every call is one transaction of about a millisecond."""

    def __init__(self, path: Path | None) -> None:
        """Open the file, made where there is none; None keeps the state in memory, for this replica's life.

        Raises:
            sqlite3.Error: it is no such file, or cannot be written.
        """
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        # Calls come from the event loop's thread and from ones beside it.
        self._lock = threading.Lock()
        self._db = sqlite3.connect(
            path or ":memory:", timeout=WAIT_S, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def watch(
        self, policy: Policy, rate: float, level: float, counts: Counts, period_s: float, now: float
    ) -> Watch:
        """Add counts to the running period of a policy's watch; return the watch, folded where the period is over.

        Args:
            rate: share of accepted requests shadowed; it and ``level`` are those of the watch from its beginning on.
            level: chance of ever a false alarm.
            counts: what this replica has counted since its last call.
            period_s: length of a period in seconds.
            now: seconds since the epoch.
        """
        digest = policy.name
        with self._transaction():
            row = self._db.execute(
                "SELECT state, pending, since FROM watch WHERE policy = ?", (digest,)
            ).fetchone()
            found, pending, since = Watch.of(policy, rate, level), Counts(), now
            if row is not None:
                try:
                    found, pending = Watch.resumed(row[0], policy), Counts.model_validate_json(row[1])
                    since = min(float(row[2]), now)
                except ValueError as error:
                    log.error("the watch over policy %s is unreadable and begins anew: %s", digest, error)
            found, pending, folded = after(found, pending, counts, now - since >= period_s)
            self._db.execute(
                "INSERT OR REPLACE INTO watch VALUES (?, ?, ?, ?)",
                (digest, found.model_dump_json(), pending.model_dump_json(), now if folded else since),
            )
        return found

    def pins(self, fresh: Iterable[bytes], since: float, now: float) -> list[bytes]:
        """Keep fresh pins, drop those of more than a day ago; return all made after ``since``."""
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO pin VALUES (?, ?)", [(key, now) for key in fresh])
            self._db.execute("DELETE FROM pin WHERE at < ?", (now - PIN_S,))
            rows = self._db.execute("SELECT conversation FROM pin WHERE at >= ?", (since,)).fetchall()
        return [bytes(row[0]) for row in rows]


def kept_in(path: Path | None) -> StateFile:
    """Return the state in a file, or in memory where the file cannot be used: the router answers all the same.

    What is no such file is put aside, and a new one is begun.
    """
    for aside in (False, True):
        try:
            if aside and path is not None:
                path.replace(path.with_name(f"{path.name}.broken"))
            return StateFile(path)
        except (OSError, sqlite3.Error) as error:
            log.error("the monitors' state cannot be kept in %s: %s", path, error)
    return StateFile(None)


def after(watch: Watch, pending: Counts, counts: Counts, over: bool) -> tuple[Watch, Counts, bool]:
    """Return watch, pending counts and whether a period was closed, once ``counts`` have come. Pure.

    A period without a request is none: it would lay stakes down for nothing.
    """
    tally: Tally = watch.tally()
    tally.merge(pending)
    tally.merge(counts)
    if not (over and tally.requests):
        return watch, tally.counts(), False
    return watch.fold({ALL: tally}), Counts(), True
