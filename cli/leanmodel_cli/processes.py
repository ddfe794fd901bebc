"""Child processes that never outlive us: groups of their own, their output in logs, and a firm end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from leanmodel_serving.host.processes import die_with_parent


class Child:
    """A process in a group of its own, its output in a log file, its lines handed to a listener."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        listener: Callable[[str], None] | None = None,
        environment: dict[str, str] | None = None,
        nice: int = 0,
    ):
        """Start the process; ``listener`` gets each line of its output, from a thread of ours."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("ab", buffering=0)
        self._listener = listener

        parent = os.getpid()

        def prepare() -> None:
            die_with_parent(signal.SIGTERM, parent)
            if nice:
                os.nice(nice)

        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})}, start_new_session=True, preexec_fn=prepare,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name=f"log {log.stem}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self._log.write(raw)
            if self._listener is not None:
                self._listener(raw.decode("utf-8", "replace").rstrip("\n"))

    def poll(self) -> int | None:
        """Return the exit code once the process has ended and its output is read, else None."""
        code = self.process.poll()
        if code is not None:
            self._reader.join(timeout=2)
        return code

    def end(self, grace_seconds: float) -> None:
        """Ask the group to end, and kill it when it has not after ``grace_seconds``."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=grace_seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def compression_python() -> Path:
    """Return the interpreter that holds the compression libraries.

    ``$LEANMODEL_COMPRESSION_PYTHON``, or ``.venv-compression`` beside the environment that we run in.

    Raises:
        FileNotFoundError: neither is there.
    """
    named = os.environ.get("LEANMODEL_COMPRESSION_PYTHON")
    path = Path(named) if named else Path(sys.prefix).parent / ".venv-compression" / "bin" / "python"
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: the compression environment is missing; run `make setup`, or name its interpreter in LEANMODEL_COMPRESSION_PYTHON"
        )
    return path
