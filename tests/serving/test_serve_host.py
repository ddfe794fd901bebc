"""The host process: ports, bad input, and an end that leaves nothing behind, however it comes."""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from serving_support import Host, alive, free_port, replace, until


def test_a_taken_port_is_refused_at_once(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "leanmodel_serving.host", "--desired", str(tmp_path / "none"), "--run-dir",
             str(tmp_path), "--port", str(port)], capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert time.monotonic() - started < 30
    assert done.returncode == 3
    assert str(port) in done.stderr and "--port" in done.stderr
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["phase"] == "Failed" and str(port) in status["message"]


def test_bad_desired_state_is_said_and_a_kill_of_the_guard_leaves_nothing(bare: Host) -> None:
    bare.start()
    until(lambda: bare.status().get("phase") == "Running", 240.0, f"the host runs: {bare.log()}")
    for text, words in (
        ("{not json", "not JSON"),
        ('{"applications": 1}', "applications"),
        ('{"applications": [{"name": "x"}]}', "import_path"),
        ('{"applications": [{"name": "a"}, {"name": "a"}]}', "more than once"),
    ):
        replace(bare.desired, text)
        found = until(lambda: bare.status()["errors"], 20.0, "the error is said")
        until(lambda words=words: words in " ".join(bare.status()["errors"]), 20.0, f"{words} in {found}")
    assert bare.status()["phase"] == "Running"
    replace(bare.desired, '{"applications": []}')
    until(lambda: not bare.status()["errors"], 20.0, "the errors are gone")

    assert bare.process is not None
    pids = bare.status()["pids"]
    assert len(pids) > 5
    bare.process.kill()
    bare.process.wait(10)
    until(lambda: not bare.left(), 60.0, "the kernel told the rest to end")
    assert not any(alive(pid) for pid in pids)


def test_ctrl_c_while_it_starts_leaves_nothing(bare: Host) -> None:
    bare.start()
    until(lambda: bare.status().get("phase") == "Starting", 60.0, "the host starts")
    until(lambda: _children(bare) > 1, 60.0, "Ray's processes appear")
    code = bare.stop(signal.SIGINT)
    assert code == 0
    assert bare.status()["phase"] == "Stopped"


def test_a_stop_that_was_dropped_is_passed_on_again() -> None:
    from leanmodel_serving.host.__main__ import _guard

    up, ready = os.pipe()
    child = os.fork()
    if child == 0:
        got: list[int] = []

        def told(number: int, _: object) -> None:
            got.append(number)
            if len(got) == 2:
                os._exit(0)

        signal.signal(signal.SIGTERM, told)
        os.write(ready, b"x")
        while True:
            signal.pause()
    os.read(up, 1)
    started = time.monotonic()
    assert _guard(child, [signal.SIGTERM]) == 0
    assert time.monotonic() - started < 10


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'leanmodel_serving.host', *sys.argv[1:]])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    (tmp_path / "serve.json").write_text('{"applications": []}')
    parent = subprocess.Popen(
        [sys.executable, "-c", script, "--desired", str(tmp_path / "serve.json"), "--run-dir", str(tmp_path / "run"),
         "--port", str(free_port()), "--die-with-parent"], stdout=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert parent.stdout is not None
    host = int(parent.stdout.readline())
    until(lambda: (tmp_path / "run" / "status.json").exists(), 60.0, "the host starts")
    parent.kill()
    parent.wait()
    until(lambda: not alive(host), 60.0, "the host is gone")


def _children(host: Host) -> int:
    from leanmodel_serving.host.processes import descendants

    assert host.process is not None
    found = descendants(host.process.pid)
    host.seen.update(found)
    return len(found)


def test_serve_still_has_the_bound_of_its_start_where_the_host_widens_it() -> None:
    from ray.serve._private import api

    assert api.HTTP_PROXY_TIMEOUT == 60 and "timeout=HTTP_PROXY_TIMEOUT" in inspect.getsource(api.serve_start)
