"""Two real Serve replicas on one ledger, one killed in the middle: the answers' costs and the ledger are one sum."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal

import aiohttp
import pytest
from aiohttp import web
from ledger_run import ANSWER_NANO, MOST_PROMPT, PROMPT_NANO, Asked, Outcome, ask, engine, prepared
from serving_support import Host, router_pids, until

from leanmodel_serving.applications import RouterArgs, desired_state, router_application
from leanmodel_serving.ledger.file import spent_ever

REQUESTS, CLIENTS = 600, 16

pytestmark = pytest.mark.long


async def scenario(host: Host) -> Outcome:
    served = web.Application()
    served.router.add_post("/v1/completions", engine)
    runner = web.AppRunner(served)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    keys = prepared(host.folder, runner.addresses[0][1])
    (host.folder / "internal-token").write_text("internal")
    args = RouterArgs(
        settings_file=str(host.folder / "router.json"), engine_token_file=str(host.run_dir / "engine-token"),
        internal_token_file=str(host.folder / "internal-token"), state_file=str(host.folder / "state.db"),
        keys_folder=str(host.folder / "keys"), replicas=2,
    )  # fmt: skip
    host.desired.write_text(json.dumps(desired_state([], router_application(args))))
    host.start()
    await asyncio.to_thread(
        until, lambda: host.ready("router") and len(router_pids(host)) == 2, 240.0, "two replicas"
    )
    found, numbers = Outcome(), itertools.count()

    async def client(session: aiohttp.ClientSession) -> None:
        while len(found.answered) < REQUESTS:
            number = next(numbers)
            key, entry = keys[number % 2]
            prompt, answer = pow(7, number + 20, MOST_PROMPT - 71), 1 + number
            asked = Asked(entry.id, prompt * PROMPT_NANO + answer * ANSWER_NANO)
            try:
                asked.said = await ask(session, host.port, key, prompt, answer, number % 3 == 0)
                found.answered.append(asked)
            except (aiohttp.ClientError, ConnectionError, AssertionError) as error:
                # HAProxy answers 503 for a replica that has just died.
                if isinstance(error, AssertionError) and not str(error).startswith("50"):
                    raise
                found.lost.append(asked)

    async def killer() -> None:
        while len(found.answered) < REQUESTS // 2:
            await asyncio.sleep(0.002)
        os.kill(router_pids(host)[0], signal.SIGKILL)
        found.killed_after = len(found.answered)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        await asyncio.gather(killer(), *(client(session) for _ in range(CLIENTS)))
    await asyncio.to_thread(until, lambda: len(router_pids(host)) == 2, 120.0, "the replica is replaced")
    await runner.cleanup()
    return found


def test_a_replica_that_is_killed_takes_no_money_with_it(bare: Host) -> None:
    found = asyncio.run(scenario(bare))
    assert bare.stop() == 0
    found.ledger = spent_ever(bare.folder / "ledger.db")
    assert found.killed_after >= REQUESTS // 2 and len(found.lost) <= 2 * CLIENTS
    assert found.wrong == []
