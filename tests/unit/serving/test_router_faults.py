"""Real router processes under faults: one killed under 200 streams, 50 policies under load."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from counting_engine import counting_engine
from fault_run import Rule, policies_under_load, rules, settings, streams_under_a_kill, two_routers, wrong
from ledger_run import up

STREAMS, CHANGES = 200, 50


@pytest.mark.slow
def test_a_killed_router_takes_its_own_streams_with_it_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with counting_engine() as engine:
            (tmp_path / "router.json").write_text(settings(engine.url).to_json())
            async with two_routers(tmp_path) as (routers, session):
                urls = [f"http://127.0.0.1:{port}" for port in routers.ports]
                seen = await streams_under_a_kill(session, engine, urls, lambda: routers.kill(1), STREAMS)
                survived, died = ([one for one in seen if one.url == url] for url in urls)
                assert len(survived) == len(died) == STREAMS // 2
                assert all(one.whole for one in survived)
                assert all(one.lost and not one.done for one in died)
                await engine.idle()
                assert engine.stopped.total() == len(died), "the engine was told of each, and of no other"

                routers.restart(1)
                await up(session, routers.ports[1])
                engine.go_on.clear()
                again = await streams_under_a_kill(session, engine, urls, lambda: None, STREAMS)
                assert all(one.whole for one in again)
                await engine.idle()

    asyncio.run(asyncio.wait_for(scenario(), 200))


@pytest.mark.slow
def test_fifty_policies_under_load_lose_nothing_and_each_answer_is_of_one(tmp_path: Path) -> None:
    found = asyncio.run(asyncio.wait_for(policies_under_load(tmp_path, CHANGES), 200))
    assert found.wrong == []
    assert len(found.answers) == CHANGES + 1 and min(found.answers.values()) >= 8
    assert found.late, "some were under way while their policy was replaced"


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
