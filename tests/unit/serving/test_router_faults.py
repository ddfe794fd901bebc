"""Real router processes under faults: one killed under 200 streams, 50 policies under load."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from counting_engine import counting_engine
from fault_run import Rule, policies_under_load, rules, settings, streams_under_a_kill, two_routers, wrong
from fault_table import Row, saw
from ledger_run import up

STREAMS, CHANGES = 200, 50


@pytest.mark.slow
def test_a_killed_router_takes_its_own_streams_with_it_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with counting_engine() as engine:
            (tmp_path / "router.json").write_text(settings(engine.url).to_json())
            async with two_routers(tmp_path) as (routers, session):
                urls = [f"http://127.0.0.1:{port}" for port in routers.ports]
                seen = await streams_under_a_kill(session, engine, urls, lambda _: routers.kill(1), STREAMS)
                survived, died = ([one for one in seen if one.url == url] for url in urls)
                assert len(survived) == len(died) == STREAMS // 2
                assert all(one.whole for one in survived)
                assert all(one.lost and not one.done for one in died)
                await engine.idle()
                assert engine.stopped.total() == len(died), "the engine was told of each, and of no other"

                routers.restart(1)
                await up(session, routers.ports[1])
                engine.go_on.clear()
                again = await streams_under_a_kill(session, engine, urls, lambda _: None, STREAMS)
                assert all(one.whole for one in again)
                await engine.idle()

    asyncio.run(asyncio.wait_for(scenario(), 200))


@pytest.mark.slow
def test_fifty_policies_under_load_lose_nothing_and_each_answer_is_of_one(tmp_path: Path) -> None:
    found = asyncio.run(asyncio.wait_for(policies_under_load(tmp_path, CHANGES), 200))
    assert found.wrong == []
    assert len(found.answers) == CHANGES + 1 and min(found.answers.values()) >= 8
    assert found.late, "some were under way while the next policy was written"


def test_an_answer_of_another_policy_is_seen() -> None:
    lean, escalated, *_ = rules(2)
    raw = '{"model": "lean", "choices": [{"text": "a-0 a-1 "}]}'
    assert wrong(lean, "lean", raw, "a 2", stream=False) == []

    def seen(rule: Rule, route: str, prompt: str, raw: str = raw) -> bool:
        return bool(wrong(rule, route, raw, prompt, stream=False))

    assert seen(escalated, "lean", "a 2") and seen(lean, "escalated", "a 2") and seen(lean, "lean", "a 3")
    torn = 'data: {"model": "lean", "choices": [{"text": "a-0 a-1 "}]}'
    assert wrong(lean, "lean", torn, "a 2", stream=True)
    assert not wrong(lean, "lean", f"{torn}\n\ndata: [DONE]\n\n", "a 2", stream=True)


DONE = "data: [DONE]\n\n"
CHUNK = 'data: {"model": "m", "choices": [{"text": "a-0 "}]}\n\n'
ERROR = '{"error": {"message": "no", "type": "t", "param": null, "code": "c"}}'


@pytest.mark.parametrize(
    ("status", "raw", "stream", "words"),
    [
        (200, '{"model": "m", "choices": [{"text": "a-0 "}]}', False, "200, answered by m"),
        (200, '{"model": "m", "choices": [{"text": "a-0"}]}', False, "! 200, and not whole"),
        (200, CHUNK + DONE, True, "200, answered by m"),
        (200, CHUNK, True, "! a stream without its end"),
        (200, DONE, True, "! 200, and not whole"),
        (200, f"{CHUNK}data: {ERROR}\n\n{DONE}", True, "200, and an error event `c`"),
        (503, ERROR, False, "503 `c`"),
        (503, '{"detail": "no"}', False, "! 503, not in"),
        (500, "Internal Server Error", False, "! 500, not in"),
    ],
)
def test_what_a_client_must_not_see_is_seen(status: int, raw: str, stream: bool, words: str) -> None:
    found = saw(status, "text/event-stream" if stream else "application/json", raw, stream, "a 1")
    assert found.startswith(words)
    row = Row("large", "breaks")
    row.stream[found] += 1
    assert bool(row.wrong) == words.startswith("!")
