"""``python -m leanmodel_operator``: the operator in a cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from .cluster.logs import set_up
from .cluster.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the operator; the exit code."""
    settings = Settings.read(sys.argv[1:] if argv is None else argv)
    set_up(settings.log_level)
    from .cluster.controller import Controller

    async def run() -> int:
        return await Controller(settings).run()

    # Not asyncio.run: at its end it waits for every task, and a process that has lost its Lease must end at once.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(run())
    except Exception as error:
        logging.getLogger("leanmodel_operator").error("ended: %s: %s", type(error).__name__, error)
        return 1


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # A thread that waits for a slow model must not hold up the end of a process that has lost its Lease.
    os._exit(code)
