"""What has to be known to undo a node: kept in its folder, for commands that come later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from .words import ClusterError

Found = TypeVar("Found")


@dataclass
class State:
    """The machine's settings as they were, folders made outside the node's, and processes by start time."""

    settings: dict[str, str] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    processes: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Keeps the state; the file is replaced as a whole."""
        new = folder / "state.json.new"
        new.write_text(json.dumps(asdict(self)))
        new.rename(folder / "state.json")

    def alive(self) -> list[int]:
        """Returns the processes that still run; a number that another process has by now does not count."""
        return [int(pid) for pid, start in self.processes.items() if start_of(int(pid)) == start]


def read(folder: Path) -> State:
    """Returns the state that was kept in a folder, an empty one if there is none."""
    try:
        return State(**json.loads((folder / "state.json").read_text()))
    except OSError:
        return State()


def process_fields(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the third on; none if there is no such process.

    The second field is the program's name in brackets, which may hold spaces and brackets itself.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def start_of(pid: int) -> str:
    """Returns when a process started, in ticks since boot; empty if it is gone, or waits to be reaped."""
    fields = process_fields(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def child_of(pid: int) -> int | None:
    """Returns a process whose parent is `pid`, or None."""
    for path in Path("/proc").glob("[0-9]*"):
        fields = process_fields(int(path.name))
        if fields and int(fields[1]) == pid:
            return int(path.name)
    return None


def until(holds: Callable[[], Found | None], what: str, seconds: float) -> Found:
    """Returns the first true answer of `holds`; raises ClusterError saying `what` when none came in time."""
    deadline = time.monotonic() + seconds
    while not (answer := holds()):
        if time.monotonic() > deadline:
            raise ClusterError(f"not within {seconds:.0f} s: {what}", "the logs folder of the node says why")
        time.sleep(0.1)
    return answer
