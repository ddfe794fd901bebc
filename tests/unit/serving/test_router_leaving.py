"""Clients that leave, half or whole, or stay and never read: the engine stops, and all that they held comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from counting_engine import FLOOD, CountingEngine, counting_engine
from fault_run import SCOPE, TOKENS, settings
from leaving_clients import WAYS, asked, leave
from policies_made import made
from router_running import Running, ran

from leanmodel_api.budget import Budget
from leanmodel_api.router import Backend, RouterLimits
from leanmodel_api.serving import Price
from leanmodel_serving.ledger.books import MODEL
from leanmodel_serving.ledger.file import spent_ever
from leanmodel_serving.router.bounded import taken
from leanmodel_serving.router.http import Answer, ClientGone

CLIENTS, SEND_S, MIB = 6, 1.0, 2**20


@asynccontextmanager
async def routed(folder: Path, **changes: Any) -> AsyncIterator[tuple[Running, CountingEngine]]:
    """One router process with as many places as clients, and a budget, before a counting engine."""
    price = Price(input_usd_per_million_tokens="1", output_usd_per_million_tokens="1")
    async with counting_engine() as engine:
        given = settings(engine.url, budget=Budget(usd_per_hour="1000"), **changes)
        both = {name: Backend(revision=name, url=engine.url, price=price) for name in ("large", "lean")}
        (folder / "router.json").write_text(given.model_copy(update=both).to_json())
        up = ran(folder)
        router = await asyncio.to_thread(up.__enter__)
        try:
            yield router, engine
        finally:
            await asyncio.to_thread(up.__exit__, None, None, None)


def places(**more: Any) -> RouterLimits:
    return RouterLimits(concurrency=CLIENTS, queue=0, **more)


async def all_is_back(router: Running, engine: CountingEngine) -> None:
    """Hold that every place is free, and nothing is running or reserved."""
    await engine.idle()
    engine.go_on.set()
    replies = []
    for client in [await asked(router, f"after{number} {TOKENS}", stream=False) for number in range(CLIENTS)]:
        replies.append((await client[0].readline()).split()[1])
        await leave(client, "close")
    assert replies == [b"200"] * CLIENTS
    await engine.idle()

    def reserved() -> int:
        return spent_ever(router.log.parent / "ledger.db")[MODEL].reserved

    async with asyncio.timeout(10):
        while reserved():
            await asyncio.sleep(0.02)


MOMENTS = {
    "whole": (0.4, False, 4, {"lean": CLIENTS}),
    "held back": (0.4, True, 1, {"lean": CLIENTS}),
    "released": (0.4, True, 4, {"lean": CLIENTS}),
    "escalated": (0.9, True, 4, {"large": CLIENTS}),
}
"""When they leave: the policy's threshold, whether they stream, where the engine waits, and who is at work then."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_whoever_leaves_is_worked_for_no_more(tmp_path: Path, moment: str) -> None:
    threshold, stream, hold_at, at_work = MOMENTS[moment]

    async def scenario() -> None:
        policy = made("cascade", scope=SCOPE, threshold=threshold, scores=None)
        async with routed(tmp_path, policy=policy, limits=places()) as (router, engine):
            engine.hold_at = hold_at
            clients = [await asked(router, f"p{number} {TOKENS}", stream) for number in range(CLIENTS)]
            if moment in ("released", "escalated"):
                for reader, _ in clients:
                    await reader.readuntil(b"data: ")
            # The loser of an escalation is stopped as well, long before anybody leaves.
            await engine.until(lambda: dict(+engine.running) == at_work, 20, f"{at_work} are under way")
            for number, client in enumerate(clients):
                await leave(client, WAYS[number % len(WAYS)])
            await engine.idle()
            assert engine.stopped == engine.asked, "each was told, and none was finished"
            await all_is_back(router, engine)

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_half_a_request_reaches_no_engine_and_holds_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with routed(tmp_path, limits=places()) as (router, engine):
            for cut in (0, 10):
                for way in WAYS:
                    await leave(await asked(router, "never 1", stream=True, cut=cut), way)
            assert not engine.asked
            await all_is_back(router, engine)

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_who_never_reads_is_given_up_and_fills_no_memory(tmp_path: Path) -> None:
    """An engine that writes without end comes to a stop with its client, and is stopped when that takes too long."""

    async def scenario() -> None:
        policy = made("all-lean", scores=None)
        async with routed(tmp_path, policy=policy, limits=places(send_timeout=SEND_S)) as (router, engine):
            before = router.resident()
            clients = [await asked(router, "flood", stream=True) for _ in range(CLIENTS)]
            await engine.until(lambda: engine.running["lean"] == CLIENTS, 20, "all are written to")
            await engine.idle(60)
            assert engine.stopped["lean"] == CLIENTS
            # It came to a stop at what the kernel keeps for two connections each, and a little of the router's.
            assert CLIENTS * len(FLOOD) < engine.written < CLIENTS * 40 * MIB
            assert router.resident() - before < CLIENTS * 10 * MIB
            await all_is_back(router, engine)  # while they still hold on to their connections
            for client in clients:
                await leave(client, "reset")

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_only_who_takes_nothing_is_given_up() -> None:
    never, limits = asyncio.Event(), RouterLimits(send_timeout=0.05)

    async def at_once(message: Any) -> None:
        del message

    async def not_at_all(message: Any) -> None:
        await never.wait()

    async def long(send: Any) -> None:
        answer, until = Answer(send), time.monotonic() + 0.3
        async with taken(limits, answer):
            await answer.start(200, "text/event-stream", {})
            while time.monotonic() < until:
                await asyncio.sleep(0.01)  # an engine that thinks
                await answer.write(b"data: x")

    async def scenario() -> None:
        await long(at_once)
        with pytest.raises(ClientGone):
            await asyncio.wait_for(long(not_at_all), 10)
        # Who is cancelled by somebody else hears of that, and of nothing else.
        task = asyncio.create_task(long(not_at_all))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
