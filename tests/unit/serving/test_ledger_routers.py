"""Two router processes on one ledger, one killed in the middle: what is spent is what the answers said, exactly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from ledger_run import Asked, Outcome, explained, run
from redis_making import PASSWORD, running

from leanmodel_api.ledger import RedisAt
from leanmodel_serving.ledger.books import MODEL, Line

REQUESTS = 200


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "redis"])
def test_two_routers_and_a_kill_lose_no_nano_dollar(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        found = asyncio.run(run(tmp_path, REQUESTS, clients=16))
    else:
        (tmp_path / "password").write_text(PASSWORD)
        with running(tmp_path) as server:
            where = RedisAt(address=server.address, password_file=str(tmp_path / "password"), prefix="ml/m")
            found = asyncio.run(run(tmp_path, REQUESTS, clients=16, redis=where))
        assert not (tmp_path / "ledger.db").exists()
    assert len(found.answered) == REQUESTS
    assert found.wrong == []
    assert REQUESTS // 2 <= found.killed_after < REQUESTS and found.ledger[MODEL].spent > 0


def test_the_audit_sees_a_nano_dollar_too_much_too_little_and_what_stays_held() -> None:
    right = Outcome(
        answered=[Asked("k", 5, 5), Asked("k", 7, 7)],
        ledger={MODEL: Line(12, 0, 2), "k": Line(12, 0, 2)},
    )
    assert right.wrong == []
    for line in (Line(13, 0, 2), Line(11, 0, 2), Line(12, 0, 3), Line(12, 0, 1)):
        assert Outcome(right.answered, [], {**right.ledger, MODEL: line}).wrong
    assert Outcome([Asked("k", 5, 6)], [], {MODEL: Line(5, 0, 1), "k": Line(5, 0, 1)}).wrong
    assert Outcome(right.answered, [], right.ledger, reserved_later=1).wrong


def test_only_lost_requests_explain_a_difference_and_only_whole_ones() -> None:
    assert explained(0, 0, []) and explained(9, 1, [3, 9]) and explained(12, 2, [3, 9])
    many = [3**power for power in range(32)]
    assert explained(sum(many[::3]), len(many[::3]), many) and not explained(sum(many[::3]) + 1, 11, many)
    assert not explained(12, 1, [3, 9]) and not explained(4, 1, [3, 9]) and not explained(0, 3, [3, 9])
