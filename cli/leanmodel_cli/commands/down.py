"""leanmodel down: end a run and everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from argparse import ArgumentParser, Namespace

from ..runs import Run, only_run, start_time

HELP = "stop serving and end every process of a run; the store keeps its artifacts"
GRACE_SECONDS = 60.0


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="the LeanModel; default: the only one")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace (default: default)")


def run(arguments: Namespace) -> int:
    """End the run; return 0 when nothing of it is left."""
    run = only_run(arguments.name, arguments.namespace)
    if not end(run):
        print(f"{run.root.name}: was not up")
    else:
        print(f"{run.root.name}: is down")
    return 0


def end(run: Run) -> bool:
    """Ask the supervisor to end and wait until it has; return whether there was one."""
    pid = run.supervisor()
    if pid is None:
        return False
    started = start_time(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while start_time(pid) == started:
        if time.monotonic() > deadline:
            print(
                f"supervisor {pid} has not ended within {GRACE_SECONDS:.0f} s; see {run.log('supervisor')}",
                file=sys.stderr,
            )
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.1)
    return True
