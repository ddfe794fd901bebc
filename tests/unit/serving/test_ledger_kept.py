"""What every keeper of the ledger holds to, a file and a Redis alike; and what a Redis can do besides: be away."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_making import NOON, History, Step, by_books, histories
from redis_making import PASSWORD, Running, running

from leanmodel_api.ledger import RedisAt, RedisStore, redis_at
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
    spent_ever,
)
from leanmodel_serving.ledger.keeper import Keeper, LedgerDownError
from leanmodel_serving.ledger.redis_store import RedisLedger

LIMIT = (Limit(MODEL, "hour", 1000),)
BOTH = pytest.mark.parametrize("kind", ["file", "redis"])
Open = Callable[[], Keeper]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("redis")
    (folder / "password").write_text(PASSWORD + "\n")
    os.environ.pop("REDIS_URL", None)
    with running(folder) as found:
        found.folder = folder  # type: ignore[attr-defined]
        yield found


def at(server: Running, prefix: str = "") -> RedisAt:
    file = str(server.folder / "password")  # type: ignore[attr-defined]
    return RedisAt(address=server.address, password_file=file, prefix=prefix or f"tests/{uuid.uuid4().hex}")


class Place:
    """Where one test's ledger is: opened as often as it likes, and read behind its back."""

    def __init__(self, kind: str, folder: Path, server: Running) -> None:
        self.path, self.at = (folder / f"{uuid.uuid4().hex}.db" if kind == "file" else None), at(server)

    def open(self) -> Keeper:
        return LedgerFile(self.path) if self.path is not None else RedisLedger(self.at)

    def ever(self) -> dict[str, Line]:
        return spent_ever(self.path) if self.path is not None else RedisLedger(self.at).spent_ever()


@pytest.fixture
def place(kind: str, tmp_path: Path, server: Running) -> Place:
    return Place(kind, tmp_path, server)


def reserve(
    name: str, nano: int, now: float = NOON, key: str = "", owner: str = "one", **rates: int
) -> Reserve:
    return Reserve(Hold(name, owner, key, int(now), nano), LIMIT, LIMIT, Rates(**rates), now)


def settled(held: Reserve, nano: int, limits: tuple[Limit, ...] = LIMIT) -> Settle:
    return Settle(held.hold, nano, 1, limits, None, held.now)


@BOTH
@given(steps=histories, turns=st.lists(st.integers(0, 2), min_size=1))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_three_processes_in_any_order_write_what_one_book_says(
    kind: str, steps: list[Step], turns: list[int], tmp_path: Path, server: Running
) -> None:
    where = Place(kind, tmp_path, server)
    keepers, done = [where.open() for _ in range(3)], 0

    def do(operation: Operation) -> Result:
        nonlocal done
        done += 1
        # The leases stay fresh whatever time passes in the history: lapsing is another test's.
        return keepers[turns[done % len(turns)]].apply([operation], "owner", NOON)[0]

    books = Books()
    kept, in_memory = History(do), History(by_books(books))
    for step in steps:
        kept.step(step)
        in_memory.step(step)
    assert kept.results == in_memory.results
    wanted = {
        place.account: line for place, line in books.lines.items() if place.span == "ever" and line != Line()
    }
    assert {account: line for account, line in where.ever().items() if line != Line()} == wanted
    for keeper in keepers:
        keeper.close()


@BOTH
@given(steps=histories)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_batch_is_its_operations_one_after_the_other(
    kind: str, steps: list[Step], tmp_path: Path, server: Running
) -> None:
    operations: list[Operation] = []
    by_one = by_books(Books())
    history = History(lambda operation: (operations.append(operation), by_one(operation))[1])
    for step in steps:
        history.step(step)
    assert Place(kind, tmp_path, server).open().apply(operations, "owner", NOON) == history.results


@BOTH
def test_what_a_dead_process_held_lapses_and_what_it_spent_stays(place: Place) -> None:
    dead, alive = place.open(), place.open()
    first, second = reserve("a", 600, key="k"), reserve("b", 400)
    dead.apply([first, second, settled(first, 100)], "one", NOON)
    dead.close()
    asked = reserve("c", 600, NOON + LEASE_S - 1, owner="two")
    assert isinstance(alive.apply([asked], "two", NOON + LEASE_S - 1)[0], Refusal)
    later = NOON + LEASE_S + 1
    asked = reserve("c", 600, later, owner="two")
    assert not isinstance(alive.apply([asked], "two", later)[0], Refusal)
    assert place.ever() == {MODEL: Line(100, 600, 1), "k": Line(100, 0, 1)}
    # One that was only asleep settles what had lapsed.
    place.open().apply([settled(second, 400)], "one", later)
    assert place.ever()[MODEL] == Line(500, 600, 2)


@BOTH
def test_a_keys_bounds_are_those_of_all_processes(place: Place) -> None:
    keepers = [place.open() for _ in range(3)]
    held = [reserve(f"h{index}", 1, key="k", concurrency=2) for index in range(3)]
    found = [keeper.apply([one], "o", NOON)[0] for keeper, one in zip(keepers, held, strict=True)]
    assert [isinstance(one, Refusal) for one in found] == [False, False, True]
    keepers[2].apply([Release(held[0].hold)], "o", NOON)
    assert not isinstance(keepers[1].apply([reserve("h4", 1, key="k", concurrency=2)], "o", NOON)[0], Refusal)
    asked = [reserve(f"r{index}", 0, key="fast", requests=3) for index in range(4)]
    found = [keepers[index % 3].apply([one], "o", NOON)[0] for index, one in enumerate(asked)]
    assert [isinstance(one, Refusal) for one in found] == [False] * 3 + [True]
    later = reserve("r9", 0, NOON + 21, key="fast", requests=3)
    assert not isinstance(keepers[0].apply([later], "o", NOON + 21)[0], Refusal)


@BOTH
def test_threads_that_write_at_once_lose_and_double_nothing(place: Place) -> None:
    """Four processes of a hundred batches each: never more is held than the limit, and the sum is the sum."""
    limit = (Limit(MODEL, "hour", 100),)
    spent: list[int] = []
    over: list[int] = []

    def work(name: str) -> None:
        keeper = place.open()
        for index in range(60):
            hold = Hold(f"{name}-{index}", name, "", NOON, 30)
            found = keeper.apply([Reserve(hold, limit, limit, None, NOON)], name, NOON)[0]
            if isinstance(found, Refusal):
                continue
            over.append(found[0].nano)
            nano = 7 if index % 3 == 0 and sum(spent) < 40 else 0
            keeper.apply([Settle(hold, nano, 1, limit, None, NOON)], name, NOON)
            spent.append(nano)
        keeper.close()

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.ever()[MODEL] == Line(sum(spent), 0, len(spent)) and len(spent) > 10
    assert min(over) >= 0


@BOTH
def test_nano_dollars_are_whole_beyond_what_a_float_holds(place: Place) -> None:
    keeper, most = place.open(), 10**18 - 1
    held = Reserve(Hold("a", "one", "", NOON, most), (), (), None, NOON)
    keeper.apply([held, Settle(held.hold, most, 1, (), None, NOON)], "one", NOON)
    assert place.ever()[MODEL].spent == most


@BOTH
def test_a_clerk_keeps_its_ledger_there(place: Place) -> None:
    clerk = Clerk(place.open(), clock=lambda: NOON)

    async def scenario() -> list[Result]:
        asked = [asyncio.ensure_future(clerk.ask(reserve(f"r{n}", 5))) for n in range(300)]
        return await asyncio.gather(*asked)

    found = asyncio.run(scenario())
    assert clerk.problem == "" and sum(isinstance(one, Refusal) for one in found) == 100
    clerk.close()


# ---------------------------------------------------------------- a Redis of its own kind


def test_two_leanmodels_share_a_redis_and_nothing_in_it(server: Running) -> None:
    store = RedisStore(address=server.address)
    one, other = (redis_at(store, "ml", name, at(server).password_file) for name in ("a", "b"))
    held = reserve("a", 10)
    RedisLedger(one).apply([held, settled(held, 10)], "one", NOON)
    assert RedisLedger(one).spent_ever()[MODEL].spent == 10 and RedisLedger(other).spent_ever() == {}
    names = server.client().keys("{leanmodel/ml/a}*")
    # Windows end by themselves; all-time sums, holds and leases do not.
    ends = {name.partition("}:")[2]: server.client().ttl(name) for name in names}
    assert all(
        (seconds > 0) is name.startswith(("line:hour", "line:day", "done")) for name, seconds in ends.items()
    )
    assert {"version", "lease", f"line:hour:{NOON}", "line:ever:0", "done:one"} <= set(ends)


def test_a_redis_that_is_away_refuses_and_what_was_settled_comes_later(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    with running(tmp_path) as first:
        first.folder = tmp_path  # type: ignore[attr-defined]
        where = at(first, "away")
        clerk = Clerk(RedisLedger(where), clock=lambda: NOON)

        async def scenario() -> None:
            held = reserve("a", 50)
            await clerk.ask(held)
            first.process.send_signal(19)  # SIGSTOP: it answers nothing
            first.process.kill()
            first.process.wait()
            assert await clerk.ask(settled(held, 40)) == []
            with pytest.raises(LedgerError):
                await clerk.ask(reserve("b", 1))
            assert "Redis" in clerk.problem and PASSWORD not in clerk.problem

        asyncio.run(scenario())
    clerk.close()


@pytest.mark.parametrize("lost", ["question", "answer"])
def test_an_answer_that_is_lost_settles_nothing_twice(
    server: Running, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = at(server)
    keeper, commit, broken = RedisLedger(where), RedisLedger._commit, [False]

    def unlucky(self: RedisLedger, *given: Any) -> bool:
        found = commit(self, *given) if lost == "answer" or not broken[0] else False
        if broken[0]:
            broken[0] = False
            raise redis.ConnectionError("the line is dead")
        return found

    monkeypatch.setattr(RedisLedger, "_commit", unlucky)
    first, second = reserve("a", 100), reserve("b", 200)
    keeper.apply([first], "one", NOON)
    end = settled(first, 60)
    broken[0] = True
    with pytest.raises(LedgerDownError, match="the line is dead"):
        keeper.apply([end, second], "one", NOON)
    # The clerk has told that the second was not reserved, and brings the settlement again.
    found = keeper.apply([end, Look(LIMIT, NOON)], "one", NOON)
    assert found[1][0].nano == 940  # type: ignore[index,union-attr]
    assert RedisLedger(where).spent_ever()[MODEL] == Line(60, 0, 1)
    assert server.client().hlen(f"{{{where.prefix}}}:hold") == 0


def test_a_password_that_changes_is_read_anew_and_a_wrong_one_is_told_as_wrong(
    server: Running, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("another one")
    keeper = RedisLedger(RedisAt(address=server.address, password_file=str(file), prefix="p"))
    with pytest.raises(LedgerDownError, match="(?i)password|auth"):
        keeper.apply([Look(LIMIT, NOON)], "one", NOON)
    file.write_text(PASSWORD)
    assert keeper.apply([Look(LIMIT, NOON)], "one", NOON)[0]
    file.unlink()
    with pytest.raises(LedgerDownError, match="password cannot be read"):
        RedisLedger(RedisAt(address=server.address, password_file=str(file), prefix="p")).spent_ever()


def test_full_buckets_of_long_ago_are_forgotten(server: Running) -> None:
    where = at(server)
    keeper = RedisLedger(where)
    keeper.apply([reserve("a", 0, key="old", requests=5)], "one", NOON)
    keeper.apply([reserve("b", 0, NOON + 9 * 86400, key="new", requests=5)], "one", NOON + 9 * 86400)
    keeper.sweep(NOON + 9 * 86400)
    assert set(server.client().hgetall(f"{{{where.prefix}}}:bucket:requests")) == {"new"}
