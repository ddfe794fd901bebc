"""Hostile bodies over real HTTP to a router process; `make bench-fuzz` sends five thousand and writes the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_bodies import KINDS, case
from fuzz_run import fault, fuzz

BODIES = 400


@pytest.mark.slow
def test_no_body_is_answered_5xx_or_not_at_all(tmp_path: Path) -> None:
    found = fuzz(tmp_path, BODIES, seed=1, look_every=200)
    assert found.wrong == []
    assert set(found.kinds) == set(KINDS) and sum(found.statuses.values()) == BODIES
    # Enough of them come through to the engine, or nothing behind the first check would have been asked.
    assert found.statuses[200] > BODIES // 10 and found.statuses[400] > BODIES // 10


def test_bodies_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    cases = [case(0, number) for number in range(50)]
    assert cases == [case(0, number) for number in range(50)] != [case(1, number) for number in range(50)]


@pytest.mark.parametrize(
    ("status", "kind", "text", "wrong"),
    [
        (200, "application/json", b"{}", False),
        (400, "application/json", b'{"error": {"message": "no"}}', False),
        (400, "application/json", b'{"error": "no"}', True),
        (400, "text/html", b"<html>", True),
        (503, "application/json", b'{"error": {"message": "no"}}', True),
        (200, "text/event-stream", b"data: {}\n\ndata: [DONE]\n\n", False),
        (200, "text/event-stream", b"data: {}\n\n", True),
    ],
)
def test_a_wrong_answer_is_seen(status: int, kind: str, text: bytes, wrong: bool) -> None:
    assert bool(fault(status, kind, text)) is wrong
