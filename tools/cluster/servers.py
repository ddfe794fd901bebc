"""One server as a process: started, waited for, stopped, with a log that is shown when it fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .words import ClusterError

GUARD = Path(__file__).resolve().parent / "guard.py"
STOP_SECONDS = 10.0


@dataclass
class Server:
    """A long-running program: its name, its command, its log file; ends with this process if `guarded`."""

    name: str
    command: Sequence[str | Path]
    log: Path
    guarded: bool = True
    variables: Mapping[str, str] | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Starts the program; its output is appended to the log."""
        words = [str(word) for word in self.command]
        if self.guarded:
            words = [sys.executable, "-I", str(GUARD), str(os.getpid()), *words]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self.variables is None else dict(self.variables),
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ends the program: asked first, killed when it does not listen. Does nothing if it is not running."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends the program at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Returns when `ready` says so; raises ClusterError when the program ends first, or time runs out."""
        if self.process is None:
            raise ClusterError(f"{self.name} was not started", "call start() first")
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready after {seconds:.0f} s")
            try:
                code = self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise self.failure(f"ended with {code}")

    def failure(self, what: str) -> ClusterError:
        """Returns the error that says what happened, with the end of the log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return ClusterError(
            f"{self.name} {what}:\n" + "\n".join(line[:400] for line in lines[-15:]), f"its log is {self.log}"
        )


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Returns ports that nothing listens on now; held open together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind((address, 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()
