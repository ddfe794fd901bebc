"""The router's app as a replica of Ray Serve runs it (uvloop, uvicorn, Ray's metrics, a log), without Serve around it.

What is profiled: py-spy sees one process that does nothing else. Run: python -m hop.replica FOLDER PORT
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from logging.handlers import MemoryHandler
from pathlib import Path

import uvicorn
import uvloop

from leanmodel_serving.host.processes import die_with_parent
from leanmodel_serving.ledger.clerk import Clerk
from leanmodel_serving.ledger.file import opened
from leanmodel_serving.metrics import ray_meters
from leanmodel_serving.router.app import RouterApp
from leanmodel_serving.router.snapshot import SettingsFile
from leanmodel_serving.router.state import kept_in
from leanmodel_serving.router.upstream import Upstream


def log_to(path: Path) -> None:
    """Log as Serve's replicas do with its throughput flag: into a file, some lines at a time."""
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(levelname)s %(asctime)s %(name)s %(message)s"))
    logger = logging.getLogger("ray.serve")
    logger.handlers.clear()  # Serve's own, of a process that is no replica: to the terminal
    logger.addHandler(MemoryHandler(1000, flushLevel=logging.ERROR, target=file))
    logger.setLevel(logging.INFO)
    logger.propagate = False


async def main(folder: Path, port: int) -> None:
    """Serve until a signal comes."""
    log_to(folder / "replica.log")
    clerk, upstream = Clerk(opened(folder / "ledger.db")), Upstream("engines")
    app = RouterApp(
        SettingsFile(folder / "router.json"), upstream, ray_meters(), "internal", kept=kept_in(folder / "state.db"),
        clerk=clerk, keys=folder / "keys",
    )  # fmt: skip
    app.warm = True  # nobody warms an engine up here
    tasks = [
        asyncio.create_task(work)
        for work in (app.watch(), app.shared.till.tend(lambda: app.state), app.shared.watcher.tend())
    ]
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        access_log=False,
        log_config=None,
        lifespan="off",
        timeout_keep_alive=90,
    )
    await uvicorn.Server(config).serve()
    for task in tasks:
        task.cancel()
    await upstream.close()
    clerk.close()


if __name__ == "__main__":
    die_with_parent(signal.SIGKILL, os.getppid())
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2])))
