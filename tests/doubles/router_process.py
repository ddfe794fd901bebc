"""The real router app in a process of its own, behind uvicorn: what a replica is, without Ray around it.

A request ends with its client, as in a replica of Serve.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import uvicorn

from leanmodel_api.ledger import RedisAt
from leanmodel_serving.host.processes import die_with_parent
from leanmodel_serving.ledger.clerk import Clerk
from leanmodel_serving.ledger.file import opened
from leanmodel_serving.ledger.redis_store import RedisLedger
from leanmodel_serving.metrics import METRICS, Meters
from leanmodel_serving.router.app import RouterApp
from leanmodel_serving.router.http import Receive, Scope, Send
from leanmodel_serving.router.snapshot import SettingsFile
from leanmodel_serving.router.upstream import Upstream


class Silent:
    """A metric that nobody reads."""

    def inc(self, value: float, labels: dict[str, str]) -> None:
        del value, labels

    observe = set = inc


class Replica:
    """Cancels a request whose client hangs up, which uvicorn alone does not do.

    After ``_direct_ingress_asgi`` in ray/serve/_private/replica.py of Ray 2.60.
    """

    def __init__(self, app: RouterApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages: asyncio.Queue[Any] = asyncio.Queue()

        async def listen() -> None:
            message = None
            while message is None or message["type"] != "http.disconnect":
                message = await receive()
                messages.put_nowait(message)

        work = asyncio.create_task(self._app(scope, messages.get, send))
        gone = asyncio.create_task(listen())
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        (work if gone.done() else gone).cancel()
        await asyncio.wait((work, gone))
        if not work.cancelled():
            work.result()


async def main(folder: Path, port: int) -> None:
    where = folder / "redis.json"  # there where the ledger is to lie in a Redis
    kept = RedisLedger(RedisAt.model_validate_json(where.read_text())) if where.exists() else None
    clerk = Clerk(kept or opened(folder / "ledger.db"))
    meters = Meters({row.name: Silent() for row in METRICS})
    settings = SettingsFile(folder / "router.json")
    app = RouterApp(settings, Upstream("engines"), meters, "internal", clerk=clerk, keys=folder / "keys")
    app.warm = True  # nobody warms an engine up here
    watch = asyncio.create_task(app.watch())
    server = uvicorn.Server(
        uvicorn.Config(
            Replica(app), host="127.0.0.1", port=port, log_level="warning", access_log=False, lifespan="off"
        )
    )
    await server.serve()
    watch.cancel()
    clerk.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    given = parser.parse_args()
    die_with_parent(signal.SIGKILL, os.getppid())
    asyncio.run(main(given.folder, given.port))
