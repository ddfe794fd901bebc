"""The ledger on disk: what several processes write is what one would, and what one forgets lapses."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_making import NOON, History, Step, by_books, histories

from leanmodel_serving.ledger.books import MODEL, Books, Hold, Limit, Line, Rates, Refusal
from leanmodel_serving.ledger.clerk import Clerk, LedgerError
from leanmodel_serving.ledger.file import (
    LEASE_S,
    LedgerFile,
    Look,
    Operation,
    Release,
    Reserve,
    Result,
    Settle,
    opened,
    spent_ever,
)

LIMIT = (Limit(MODEL, "hour", 1000),)


def lines(path: Path) -> dict[tuple[str, str, int], Line]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT account, span, start, spent, reserved, requests FROM line")
        return {row[:3]: Line(*row[3:]) for row in rows.fetchall()}


@settings(deadline=None, max_examples=30)
@given(histories, st.lists(st.integers(0, 2), min_size=1))
def test_three_processes_in_any_order_write_what_one_book_says(steps: list[Step], turns: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        files = [LedgerFile(path) for _ in range(3)]
        done = 0

        def do(operation: Operation) -> Result:
            nonlocal done
            done += 1
            file = files[turns[done % len(turns)]]
            # The leases stay fresh whatever time passes in the history: lapsing is another test's.
            return file.apply([operation], "owner", NOON)[0]

        books = Books()
        on_disk, in_memory = History(do), History(by_books(books))
        for step in steps:
            on_disk.step(step)
            in_memory.step(step)
        assert on_disk.results == in_memory.results
        kept = {place: line for place, line in lines(path).items() if line != Line()}
        assert kept == {
            (place.account, place.span, place.start): line
            for place, line in books.lines.items()
            if line != Line()
        }
        for file in files:
            file.close()


@given(histories)
@settings(deadline=None, max_examples=30)
def test_a_batch_is_its_operations_one_after_the_other(steps: list[Step]) -> None:
    operations: list[Operation] = []
    books = Books()
    by_one = by_books(books)

    def do(operation: Operation) -> Result:
        operations.append(operation)
        return by_one(operation)

    history = History(do)
    for step in steps:
        history.step(step)
    file = LedgerFile(None)
    assert file.apply(operations, "owner", NOON) == history.results
    file.close()


def reserve(name: str, nano: int, at: float = NOON, key: str = "", owner: str = "one") -> Reserve:
    return Reserve(Hold(name, owner, key, int(at), nano), LIMIT, LIMIT, Rates(), at)


def test_what_a_dead_process_held_lapses_and_what_it_spent_stays(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    dead, alive = LedgerFile(path), LedgerFile(path)
    first, second = reserve("a", 600, key="k"), reserve("b", 400)
    dead.apply([first, second, Settle(first.hold, 100, 0, LIMIT, None, NOON)], "one", NOON)
    dead.close()
    asked = reserve("c", 600, NOON + LEASE_S - 1, owner="two")
    assert isinstance(alive.apply([asked], "two", NOON + LEASE_S - 1)[0], Refusal)
    later = NOON + LEASE_S + 1
    asked = reserve("c", 600, later, owner="two")
    assert not isinstance(alive.apply([asked], "two", later)[0], Refusal)
    assert lines(path)[MODEL, "hour", NOON] == Line(spent=100, reserved=600, requests=1)
    assert lines(path)["k", "ever", 0] == Line(spent=100, reserved=0, requests=1)
    alive.close()


def test_one_that_was_only_asleep_settles_what_had_lapsed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    asleep, other = LedgerFile(path), LedgerFile(path)
    held = reserve("a", 600)
    asleep.apply([held], "one", NOON)
    other.apply([Look(LIMIT, NOON)], "two", NOON + LEASE_S + 1)
    assert lines(path)[MODEL, "hour", NOON].reserved == 0
    asleep.apply([Settle(held.hold, 600, 0, LIMIT, None, NOON)], "one", NOON + LEASE_S + 2)
    assert lines(path)[MODEL, "hour", NOON] == Line(spent=600, reserved=0, requests=1)
    asleep.close(), other.close()


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LedgerFile(tmp_path / "ledger.db")
    file.apply([reserve("a", 1)], "one", NOON)
    monkeypatch.setattr(Books, "settle", lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("full")))
    with pytest.raises(sqlite3.OperationalError):
        file.apply(
            [reserve("b", 2), Settle(Hold("a", "one", "", NOON, 1), 1, 0, (), None, NOON)], "one", NOON
        )
    assert lines(tmp_path / "ledger.db")[MODEL, "ever", 0] == Line(reserved=1)
    file.close()


def test_a_file_that_is_none_is_put_aside_and_one_that_cannot_be_written_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("no database, and long enough to be seen as none " * 30)
    file = opened(path)
    assert file.lasting and path.with_name("ledger.db.broken").exists()
    file.close()
    assert spent_ever(path) == {}
    nowhere = opened(tmp_path / "ledger.db" / "below-a-file.db")
    assert not nowhere.lasting and Clerk(nowhere).problem


def test_old_windows_are_forgotten_and_the_sum_is_not(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "ledger.db")
    held = reserve("a", 10)
    file.apply([held, Settle(held.hold, 10, 0, (), None, NOON)], "one", NOON)
    file.sweep(NOON + 9 * 86400)
    kept = lines(tmp_path / "ledger.db")
    assert {place[1] for place in kept} == {"day", "ever"}
    file.sweep(NOON + 401 * 86400)
    assert {place[1] for place in lines(tmp_path / "ledger.db")} == {"ever"}
    assert spent_ever(tmp_path / "ledger.db")[MODEL].spent == 10
    file.close()


# ---------------------------------------------------------------- the clerk


def test_many_at_once_are_few_transactions_and_each_has_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LedgerFile(tmp_path / "ledger.db")
    sizes: list[int] = []
    free, apply = threading.Event(), LedgerFile.apply

    def counted(self: LedgerFile, batch: list[Operation], owner: str, now: float) -> list[Result]:
        sizes.append(len(batch))
        free.wait(10)
        return apply(self, batch, owner, now)

    monkeypatch.setattr(LedgerFile, "apply", counted)
    clerk = Clerk(file, clock=lambda: NOON)

    async def scenario() -> list[Result]:
        asked = [asyncio.ensure_future(clerk.ask(reserve(f"r{n}", 5))) for n in range(300)]
        await asyncio.sleep(0)
        free.set()
        return await asyncio.gather(*asked)

    found = asyncio.run(scenario())
    clerk.close()
    assert sum(isinstance(one, Refusal) for one in found) == 100
    assert sum(sizes) == 300 and len(sizes) <= 3


def test_a_settlement_that_cannot_be_written_is_kept_and_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    clerk = Clerk(LedgerFile(path), clock=lambda: NOON)
    broken, apply = threading.Event(), LedgerFile.apply

    def failing(self: LedgerFile, batch: list[Operation], owner: str, now: float) -> list[Result]:
        if broken.is_set():
            raise sqlite3.OperationalError("disk I/O error")
        return apply(self, batch, owner, now)

    monkeypatch.setattr(LedgerFile, "apply", failing)

    async def scenario() -> None:
        held = reserve("a", 50)
        await clerk.ask(held)
        broken.set()
        assert await clerk.ask(Settle(held.hold, 40, 0, LIMIT, None, NOON)) == []
        with pytest.raises(LedgerError):
            await clerk.ask(reserve("b", 1))
        assert "disk" in clerk.problem
        broken.clear()
        await clerk.ask(Look(LIMIT, NOON))
        assert clerk.problem == ""

    asyncio.run(scenario())
    clerk.close()
    assert lines(path)[MODEL, "ever", 0] == Line(spent=40, requests=1)


def test_what_was_told_is_written_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    clerk = Clerk(LedgerFile(path), clock=lambda: NOON)
    held = [reserve(f"r{n}", 1) for n in range(50)]
    for one in held:
        clerk.tell(one)
        clerk.tell(Settle(one.hold, 1, 0, (), None, NOON))
    clerk.tell(Release(held[0].hold))
    clerk.close()
    assert lines(path)[MODEL, "ever", 0] == Line(spent=50, requests=50)
