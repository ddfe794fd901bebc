"""Processes are found and ended, grandchildren and orphans included; ports are told apart."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leanmodel_api.errors import RefusedError
from leanmodel_serving.host.ports import free_block, is_free, require_free
from leanmodel_serving.host.processes import become_subreaper, descendants, end_descendants

STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print('up', flush=True)\n"
    "time.sleep(600)\n"
)


def _family(results: multiprocessing.Queue[tuple[int, int, list[int]]]) -> None:
    """In a process of its own: start a family, orphan its youngest, end all."""
    become_subreaper()
    first = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert first.stdout is not None and first.stdout.readline() == b"up\n"
    before = descendants(os.getpid())
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    deadline = time.monotonic() + 10
    while len(orphans := descendants(os.getpid())) != 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    second = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert second.stdout is not None and second.stdout.readline() == b"up\n"
    left = end_descendants(os.getpid(), grace_s=0.5)
    results.put((len(before), len(orphans), left))


def test_a_whole_family_is_ended_stubborn_and_orphaned_ones_too() -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[int, int, list[int]]] = context.Queue()
    process = context.Process(target=_family, args=(results,))
    process.start()
    found = results.get(timeout=60)
    process.join(10)
    assert found[1:] == (1, []) and found[0] >= 2


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert not is_free(port, "127.0.0.1")
        with pytest.raises(RefusedError, match=f"{port}.*--port"):
            require_free(port, "127.0.0.1")
    require_free(port, "127.0.0.1")


def test_a_block_of_ports_goes_around_taken_ones() -> None:
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        low = taken - 6
        first = free_block(4, (low, low + 15), seed=1)
        assert taken not in range(first, first + 4)
        with pytest.raises(RefusedError, match="hidden-ports"):
            free_block(1, (taken, taken))


@pytest.mark.parametrize(
    ("ray", "words"),
    [
        (
            "raise RuntimeError('the raylet did not register\\nin time')",
            "RuntimeError: the raylet did not register; logs: ",
        ),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "most likely for memory"),
        ("import os\nos._exit(7)", "ended with code 7"),
    ],
)
def test_why_a_host_ended_is_in_its_status(tmp_path: Path, ray: str, words: str) -> None:
    """A Ray that cannot be started stands for all that goes wrong below the guard."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ray.py").write_text(ray)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = [str(tmp_path / "broken"), *(path for path in sys.path if path)]
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "leanmodel_serving.host", "--desired", str(tmp_path / "none"), "--run-dir", str(folder),
         "--port", str(port)], env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    status = json.loads((folder / "status.json").read_text())
    assert done.returncode != 0 and status["phase"] == "Failed"
    assert words in status["message"] and str(folder / "logs") in status["message"]
