"""What a replica takes of memory on a CPU, beside its weights and its key-value cache: vLLM's, and ONNX Runtime's.

Starts each model as it is served, asks as much at once as the engine computes at once, and reads the anonymous memory of
the replica and of the processes that it started, the peak included. Ray's own processes are not counted. The constants
of api/leanmodel_api/footprint.py are these figures.
Run: make bench-served-memory BENCH_ARGS="--work FOLDER MODEL [MODEL ...]"; a MODEL is the folder of an artifact's files.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from leanmodel_api.base import quantity
from leanmodel_serving.applications import EngineSettings, desired_state, engine_application, engine_prefix

NAME = "lean-measured"
READY_S = 600.0
SAMPLED_S = 0.02
AT_ONCE = 64
WORD = "hello "


class Watch:
    """The anonymous memory of a replica: its process and those below it, sampled until the block ends."""

    def __init__(self, run_dir: Path) -> None:
        """Look below the host's folder for the replica."""
        self.run_dir, self.peak = run_dir, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Watch:
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling."""
        self._over.set()
        self._thread.join()

    def now(self) -> int:
        """Return the bytes that the replica's processes hold now."""
        return sum(map(anonymous, replica(self.run_dir)))

    def _sample(self) -> None:
        while not self._over.wait(SAMPLED_S):
            self.peak = max(self.peak, self.now())


def replica(run_dir: Path) -> list[int]:
    """Return the replica's process and those that it started."""
    try:
        pids = json.loads((run_dir / "status.json").read_text())["pids"]
    except (OSError, ValueError, KeyError):
        return []
    mine = {pid for pid in pids if NAME in title(pid)}
    return sorted(mine | {pid for pid in pids if parent(pid) in mine})


def title(pid: int) -> str:
    """Return a process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def parent(pid: int) -> int:
    """Return a process's parent, 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def anonymous(pid: int) -> int:
    """Return a process's anonymous memory in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def measure(model: Path, folder: Path, options: argparse.Namespace) -> str:
    """Serve one model, ask it, and return its row of the table."""
    folder.mkdir(parents=True)
    run_dir, desired = folder / "run", folder / "serve.json"
    run_dir.mkdir()
    onnx = (model / "model.onnx").exists()
    settings = EngineSettings(
        revision=NAME, model=str(model), token_file=str(run_dir / "engine-token"), dtype=options.dtype,
        max_model_length=options.length, kv_cache_bytes=int(quantity(options.kv_cache)),
    )  # fmt: skip
    engine = engine_application(settings, "ONNXRuntime" if onnx else "vLLM")
    desired.write_text(json.dumps(desired_state([engine], None)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        sys.executable,
        "-m",
        "leanmodel_serving.host",
        "--desired",
        str(desired),
        "--run-dir",
        str(run_dir),
    ]
    with (folder / "host.log").open("wb") as log:
        host = subprocess.Popen(
            [*command, "--port", str(port), "--die-with-parent"], stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    try:
        with Watch(run_dir) as watch:
            wait_until_ready(run_dir, host)
            started, idle = watch.peak, watch.now()
            token = (run_dir / "engine-token").read_text().strip()
            ask(f"http://127.0.0.1:{port}{engine_prefix(NAME)}", token, onnx, options.length)
            loaded, after = watch.peak, watch.now()
    finally:
        host.terminate()
        host.wait(60)
    weights = sum(path.stat().st_size for path in model.iterdir() if path.suffix in (".safetensors", ".onnx"))
    figures = (weights, started, idle, loaded, after)
    return (
        f"| {options.label or model.name} | " + " | ".join(f"{figure / 1e6:.0f}" for figure in figures) + " |"
    )


def wait_until_ready(run_dir: Path, host: subprocess.Popen[bytes]) -> None:
    """Wait until the replica takes requests; fail where it cannot."""
    deadline = time.monotonic() + READY_S
    while True:
        if host.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the replica is not ready; log: {run_dir.parent / 'host.log'}")
        try:
            found = json.loads((run_dir / "status.json").read_text())["applications"].get(NAME, {})
        except (OSError, ValueError, KeyError):
            found = {}
        if found.get("ready"):
            return
        time.sleep(0.2)


def ask(url: str, token: str, onnx: bool, length: int) -> None:
    """Ask as many long texts at once as the engine computes at once; an encoder twice.

    Each begins differently: what vLLM remembers of a prompt would save it the work.
    """
    headers = {"authorization": f"Bearer {token}"}

    def one(at: int) -> None:
        text = f"{at} " + WORD * (length - (4 if onnx else 16))
        body = {"model": NAME, "input": text, "truncate_prompt_tokens": -1} if onnx else {
            "model": NAME, "prompt": text, "max_tokens": 8, "temperature": 0, "logprobs": 5,
        }  # fmt: skip
        path = "/classify" if onnx else "/v1/completions"
        httpx.post(url + path, json=body, headers=headers, timeout=900.0).raise_for_status()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(AT_ONCE * (2 if onnx else 1))))


def main() -> int:
    """Measure each model and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, help="folders with an artifact's files")
    parser.add_argument("--work", type=Path, required=True, help="folder of this run, empty or new")
    parser.add_argument("--dtype", default="Float32", help="precision of vLLM's computation")
    parser.add_argument("--kv-cache", default="512Mi", help="key-value cache of vLLM")
    parser.add_argument("--length", type=int, default=512, help="tokens of a request")
    parser.add_argument("--label", help="how the model is called in the table. Default: its folder's name")
    options = parser.parse_args()
    print("| model | weights as stored, MB | peak until ready | idle | peak under load | after |")
    print("|---|---|---|---|---|---|", flush=True)
    for at, model in enumerate(options.models):
        place = options.work.absolute() / f"{at}-{time.strftime('%H%M%S')}"
        print(measure(model.absolute(), place, options), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
