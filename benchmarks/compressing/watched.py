"""A process of its own, its time and its memory: the same instrument for our Jobs and for what they are held against."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from leanmodel_serving.host.processes import die_with_parent

INTERVAL = 0.05


@dataclass(frozen=True)
class Watched:
    """How a process went.

    Attributes:
        code: its exit code.
        seconds: from start to end.
        cpu_seconds: of computing, its children's included; what else the machine does hardly counts.
        peak_anonymous: largest memory that no file backs, bytes, sampled every 50 ms.
        errors: the end of what it wrote to standard error.
    """

    code: int
    seconds: float
    cpu_seconds: float
    peak_anonymous: int
    errors: str

    def figures(self) -> dict[str, Any]:
        """Return it for a line of results."""
        return {name: value for name, value in asdict(self).items() if name != "errors"}


def watch(command: Sequence[str], threads: int, each_line: Callable[[str], None] | None = None) -> Watched:
    """Run a process to its end; it dies with us."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    parent, began = os.getpid(), monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent),
        )  # fmt: skip
        over, peak = threading.Event(), [0]
        sampler = threading.Thread(target=_sample, args=(process.pid, over, peak), daemon=True)
        sampler.start()
        assert process.stdout is not None
        for line in process.stdout:
            if each_line is not None:
                each_line(line)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        over.set()
        sampler.join()
        errors.seek(0)
        words = errors.read()[-2000:]
    cpu = usage.ru_utime + usage.ru_stime
    return Watched(process.returncode, round(seconds, 2), round(cpu, 2), peak[0], words)


def _sample(pid: int, over: threading.Event, peak: list[int]) -> None:
    while not over.wait(INTERVAL):
        peak[0] = max(peak[0], anonymous(pid))


def anonymous(pid: int) -> int:
    """Return the anonymous resident memory of a process in bytes, 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
