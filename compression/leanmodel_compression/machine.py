"""What this machine has left: memory (cgroup and system), disk, and how fast it multiplies."""

from __future__ import annotations

import contextlib
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from . import devices
from .memory import read_status


@dataclass(frozen=True)
class Machine:
    """What is free.

    Attributes:
        memory_bytes: what this process may have, what it has already among it.
        disk_bytes: of the store's disk.
        device_bytes: of the GPU that models go to; None where they stay on the processor.
    """

    memory_bytes: int
    disk_bytes: int
    device_bytes: int | None = None


def look(store_root: Path) -> Machine:
    """Read what this process may have, and the free disk of the folder that holds the store.

    Estimates are of a whole process, and this one is under way: what it holds already is not missing.
    """
    folder = store_root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    held = read_status().get("RssAnon", 0)
    return Machine(free_memory() + held, shutil.disk_usage(folder).free, devices.free())


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the memory that is free for us in bytes: what is left of a cgroup's limit, else of the system's.

    Where a limit was set, somebody has given us that much: a scheduler reserves it, and what its neighbours hold at
    this moment is no reason to refuse for good. Unknown counts as endless, so that a system without these files
    refuses nothing.
    """
    left = _cgroup_left(cgroup)
    left = _available(meminfo) if left is None else left
    return 2**62 if left is None else left


def _available(meminfo: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _cgroup_left(root: Path) -> int | None:
    # v2, then v1. File pages that the kernel can drop count as used there, so they are taken off.
    for limit_name, used_name, stat_key in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit_file = root / limit_name
        with contextlib.suppress(OSError, ValueError):
            text = limit_file.read_text().strip()
            if text == "max" or int(text) >= 2**60:
                return None
            used = int((root / used_name).read_text())
            return int(text) - used + _stat(limit_file.parent / "memory.stat", stat_key)
    return None


def _stat(path: Path, key: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return what the processor calls itself, or its architecture where it has no name: times are of that kind alone."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def probe_gflops(hidden: int, inner: int, seconds: float = 0.3) -> float:
    """Return the speed of float32 matrix products of a layer's size on the Job's device, in 10⁹ operations a second.

    The best of many short runs: a neighbour that takes a core for a moment says nothing about the machine.
    What neighbours cost for longer is learned from the work itself (see progress).
    """
    import torch

    place = devices.here()
    left, right = torch.randn(512, hidden).to(place), torch.randn(hidden, inner).to(place)
    torch.mm(left, right)
    devices.settle()
    operations, best = 2.0 * 512 * hidden * inner, 0.0
    deadline = time.perf_counter() + seconds
    while (started := time.perf_counter()) < deadline:
        torch.mm(left, right)
        devices.settle()
        best = max(best, operations / max(1e-9, time.perf_counter() - started))
    return best / 1e9
