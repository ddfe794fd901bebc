"""Two real Serve replicas of the router under 200 streams, one killed: its own streams break, and no other."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import aiohttp
import psutil
import pytest
from counting_engine import CountingEngine, counting_engine
from fault_run import Seen, body, settings, streams_under_a_kill
from serving_support import Host, router_pids, until

from leanmodel_api.router import RouterLimits
from leanmodel_serving.applications import RouterArgs, desired_state, router_application

STREAMS, WHOLES, FEW = 200, 12, 12

pytestmark = pytest.mark.long


async def started(host: Host, engine: CountingEngine) -> None:
    (host.folder / "internal-token").write_text("internal")
    # On a loaded machine it takes a while until all are under way: none is given up for that.
    patient = RouterLimits(first_byte_timeout=600, idle_timeout=600)
    (host.folder / "router.json").write_text(settings(engine.url, limits=patient).to_json())
    args = RouterArgs(
        settings_file=str(host.folder / "router.json"), engine_token_file=str(host.run_dir / "engine-token"),
        internal_token_file=str(host.folder / "internal-token"), state_file=str(host.folder / "state.db"), replicas=2,
    )  # fmt: skip
    host.desired.write_text(json.dumps(desired_state([], router_application(args))))
    host.start()
    await asyncio.to_thread(
        until, lambda: host.ready("router") and len(router_pids(host)) == 2, 400.0, "two replicas"
    )
    async with aiohttp.ClientSession() as session, asyncio.timeout(240):
        # A replica's process is there before HAProxy sends anybody to it.
        while not await both_at_work(host, engine, session):
            pass


async def both_at_work(host: Host, engine: CountingEngine, session: aiohttp.ClientSession) -> bool:
    """Whether some streams at once are spread over both replicas; a replica has a connection for each."""
    engine.go_on.clear()
    few = [Seen(host.url, f"few{number} 12") for number in range(FEW)]
    tasks = [asyncio.create_task(one.listen(session)) for one in few]
    await asyncio.gather(*(one.begun.wait() for one in few))
    port = int(engine.url.rpartition(":")[2])
    held = [
        sum(bool(one.raddr) and one.raddr.port == port for one in psutil.Process(pid).net_connections("tcp"))
        for pid in router_pids(host)
    ]
    engine.go_on.set()
    await asyncio.gather(*tasks)
    return len(held) == 2 and min(held) >= FEW // 3


async def scenario(host: Host) -> tuple[list[Seen], list[tuple[int, str, str]], int]:
    """Kill one replica; return the streams, status, kind and text of the whole answers, and how many were stopped."""
    async with counting_engine() as engine:
        engine.go_on.set()
        await started(host, engine)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=600), connector=connector
        ) as session:

            async def whole(number: int) -> tuple[int, str, str]:
                asked = body(f"w{number} 5", stream=False)
                try:
                    async with session.post(f"{host.url}/v1/completions", json=asked) as reply:
                        return reply.status, reply.content_type, await reply.text()
                except aiohttp.ServerDisconnectedError:
                    return (
                        0,
                        "",
                        "",
                    )  # HAProxy hangs up in turn where the connection behind it had been used before

            engine.go_on.clear()
            wholes = [asyncio.create_task(whole(number)) for number in range(WHOLES)]

            def kill(streams: list[Seen]) -> None:
                os.kill(router_pids(host)[0], signal.SIGKILL)

                # Told before it goes on: afterwards it would be done sooner than it hears that nobody listens.
                def told() -> bool:
                    over = sum(bool(one.lost) for one in streams) + sum(one.done() for one in wholes)
                    return 0 < engine.stopped.total() == over

                until(told, 60.0, "the engine is told of each request that broke off")

            seen = await streams_under_a_kill(session, engine, [host.url], kill, STREAMS, WHOLES)
            replies = await asyncio.gather(*wholes)
            await engine.idle()
            stopped = engine.stopped.total()
            await asyncio.to_thread(until, lambda: len(router_pids(host)) == 2, 300.0, "it is replaced")
            again = [Seen(host.url, f"again{number} 12") for number in range(STREAMS)]
            await asyncio.gather(*(one.listen(session) for one in again))
            assert not [one for one in again if not one.whole]
            await engine.idle()
    return seen, replies, stopped


def test_a_replica_that_is_killed_takes_its_own_streams_with_it_and_no_other(bare: Host) -> None:
    seen, replies, stopped = asyncio.run(scenario(bare))
    broken = [one for one in seen if not one.whole]
    assert all(one.lost and not one.done for one in broken), (
        "what broke off says so, and nothing else is short"
    )
    failed = [(kind, text) for status, kind, text in replies if status != 200]
    assert {status for status, _, _ in replies} <= {0, 200, 503}
    for kind, text in filter(any, failed):
        error = json.loads(text)["error"]
        assert kind == "application/json" and (error["code"], bool(error["message"])) == ("no_replica", True)
    # The engine was told of each that broke off: what it stopped is what was lost, and there was something to lose.
    assert stopped == len(broken) + len(failed) and 0 < len(broken) < STREAMS
    assert bare.stop() == 0
