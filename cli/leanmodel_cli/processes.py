"""Child processes that never outlive us: groups of their own, a reaper for orphans, and a firm end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_reaper() -> None:
    """Make orphans of our children ours, so that :func:`end_descendants` finds them all."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def die_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it ends; run between fork and exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


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

        def prepare() -> None:
            die_with_parent()
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


def descendants(root: int) -> list[int]:
    """Return the processes below ``root``, nearest first, as the kernel knows them now."""
    parents: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = Path(entry.path, "stat").read_text().rsplit(")", 1)[1].split()
                if fields[0] != "Z":
                    parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    level = [root]
    while level:
        level = [child for parent in level for child in parents.get(parent, [])]
        found += level
    return found


def end_descendants(grace_seconds: float = 5.0) -> None:
    """End everything below this process: first asked, then killed, and reaped."""
    deadline = time.monotonic() + grace_seconds
    first = True
    while pids := descendants(os.getpid()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM if first else signal.SIGKILL)
        first = False
        while time.monotonic() < deadline and descendants(os.getpid()):
            _reap()
            time.sleep(0.05)
        deadline = time.monotonic() + 1.0
        _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


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
