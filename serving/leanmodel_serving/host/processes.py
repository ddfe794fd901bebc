"""Processes on Linux: adopt what is orphaned, find descendants, leave none behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


# Loaded once: between fork and exec, where `die_with_parent` runs too, nothing may be loaded.
_LIBC = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def become_subreaper() -> None:
    """Make this process the new parent of its descendants' orphans, so that none can slip away."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int, parent: int) -> None:
    """Have the kernel send this process a signal when its parent ends.

    Args:
        number: the signal.
        parent: the parent's pid as known before; a parent that is gone already counts as ended.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def _parents() -> dict[int, int]:
    """Return pid -> parent's pid of all processes that are not zombies."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name in brackets may hold spaces and brackets: what follows the last one is regular.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(entry.name)] = int(fields[1])
    return found


def descendants(root: int) -> list[int]:
    """Return the live descendants of a process, parents before children."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        children.setdefault(parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        for child in children.get(queue.pop(0), ()):
            found.append(child)
            queue.append(child)
    return found


def children(parent: int) -> list[int]:
    """Return the live children of a process."""
    return [pid for pid, above in _parents().items() if above == parent]


def command_line(pid: int) -> str:
    """Return a process's command line, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def reap() -> None:
    """Collect every child that has ended, adopted ones included."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass


def end_descendants(root: int, grace_s: float) -> list[int]:
    """End all descendants of ``root``: SIGTERM first, SIGKILL after ``grace_s``; return those that would not go.

    Looks again until nothing is left, since a dying process may still start another.
    """
    deadline = time.monotonic() + grace_s
    told: set[int] = set()
    while (left := descendants(root)) and time.monotonic() < deadline:
        for pid in left:
            if pid not in told:
                told.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)
        reap()
    deadline = time.monotonic() + 10.0
    while (left := descendants(root)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
        reap()
    return left
