"""The operator's process, forked from one that has its modules loaded: a crash costs no two seconds of imports.

What runs is ``leanmodel_operator.__main__.main`` with the same flags, in a process of its own that is killed as any.
For hundreds of lives; the tests start ``python -m leanmodel_operator`` itself.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
_PRELOADED = ["__main__", "leanmodel_operator.cluster.controller", "leanmodel_operator.__main__"]


def _run(flags: Sequence[str], variables: Mapping[str, str], log: str) -> None:
    """Be the operator; the parent's death is ours."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, sys.stdout.fileno())
    os.dup2(handle, sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(variables)
    from leanmodel_operator.__main__ import main

    os._exit(main(flags))


class ForkedServer:
    """What ``cluster.servers.Server`` is to a program, for a forked operator."""

    def __init__(self, flags: Sequence[str], log: Path, variables: Mapping[str, str]) -> None:
        """Takes the operator's flags."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._arguments = (list(flags), dict(variables), str(log))
        self.process: Forked | None = None

    def start(self) -> None:
        """Forks."""
        self.process = Forked(self._context.Process(target=_run, args=self._arguments, daemon=True))

    def stop(self) -> None:
        """Ends it: asked first, killed when it does not listen."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Ends it at once."""
        if self.process is not None:
            self.process.inner.kill()
            self.process.inner.join()


class Forked:
    """A process with the methods of ``subprocess.Popen`` that are used here."""

    def __init__(self, inner: Any) -> None:
        """Starts it."""
        self.inner = inner
        inner.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self.inner.pid)

    @property
    def returncode(self) -> int | None:
        """Its exit code; None while it runs."""
        code: int | None = self.inner.exitcode
        return code

    def poll(self) -> int | None:
        """Returns the exit code; None while it runs."""
        return self.returncode

    def wait(self, seconds: float) -> int:
        """Waits for its end; its exit code."""
        self.inner.join(seconds)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("operator", seconds)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it still runs."""
        if self.returncode is None:
            os.kill(self.pid, number)
