"""The routers that are measured, each a process tree of its own on one core: ours as users get it, and LiteLLM's proxy."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leanmodel_api.keys import SUFFIX, issue
from leanmodel_api.router import RouterSettings
from leanmodel_serving.applications import RouterArgs, desired_state, router_application
from leanmodel_serving.host.processes import descendants

from .environment import ROOT, environment, version
from .settings import GENEROUS, MODEL, router_settings

LOCK = ROOT / "requirements" / "gateway.lock"
START_S, END_S = 600.0, 60.0
TICKS = os.sysconf("SC_CLK_TCK")
# As LiteLLM's own page on production says, and nothing that asks anybody else.
LITELLM_ENV = {
    "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False", "NO_DOCS": "True",
}  # fmt: skip
# Ray makes its workers polite (nice 15): beside any other work the two would be compared by their priorities.
RAY_ENV = {"RAY_worker_niceness": "0"}
LITELLM_CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: {provider}/large
      api_base: {engine}/v1
      api_key: none
      input_cost_per_token: 0.0000003
      output_cost_per_token: 0.0000012
litellm_settings:
  set_verbose: false
  request_timeout: 600
  telemetry: false
general_settings:
  master_key: {key}
"""


@dataclass
class Subject:
    """Something that answers.

    Attributes:
        url: its address.
        key: what it wants as the bearer token.
        pid: root of its processes.
        folder: its files.
    """

    url: str
    key: str
    pid: int
    folder: Path

    def processes(self) -> list[int]:
        """Return its processes."""
        return [self.pid, *descendants(self.pid)]

    def cpu_seconds(self) -> float:
        """Return the processor time of its processes so far, in seconds."""
        total = 0
        for pid in self.processes():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def follow(self, settings: RouterSettings) -> None:
        """Give ours other settings, and wait until they are in force."""
        fresh = self.folder / "settings.new"
        fresh.write_text(settings.to_json(), encoding="utf-8")
        fresh.replace(self.folder / "router.json")
        wanted = f'"generation":{settings.generation},'
        until(lambda: wanted in get(f"{self.url}/healthz"), self.folder / "host.log")


def free_port() -> int:
    """Return a port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, key: str = "") -> str:
    """Return what lies at an address; nothing while nobody answers."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return ""


def until(look: object, log: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until ``look`` finds something.

    Raises:
        RuntimeError: it takes too long, or the process has ended.
    """
    deadline = time.monotonic() + START_S
    while not look():  # type: ignore[operator]
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            raise RuntimeError(f"it does not come up: {log.read_text()[-2000:] if log.exists() else ''}")
        time.sleep(0.1)


@contextmanager
def process(
    core: int, command: list[str], log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, and all that it starts, on one core."""
    with log.open("ab") as out:
        found = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=out, stderr=out, env=os.environ | (env or {}),
            cwd=ROOT / "benchmarks",
        )  # fmt: skip
    try:
        yield found
    finally:
        found.send_signal(signal.SIGTERM)
        try:
            found.wait(END_S)
        except subprocess.TimeoutExpired:
            found.kill()
            found.wait()


@contextmanager
def mock_engine(core: int, folder: Path) -> Iterator[Subject]:
    """The engine that all ask, and that is asked without a router too."""
    port = free_port()
    with process(core, [sys.executable, "-m", "hop.engine", str(port)], folder / "engine.log") as found:
        until(lambda: _listens(port), folder / "engine.log", found)
        yield Subject(f"http://127.0.0.1:{port}", "none", found.pid, folder)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def ours(core: int, folder: Path, engine: str) -> Iterator[Subject]:
    """Our router as ``leanmodel up`` starts it: Ray, Serve and HAProxy with it, keys, ledger, metrics, a policy."""
    key = _prepared(folder, engine)
    for token in ("engine-token", "internal-token"):
        (folder / token).write_text(secrets.token_urlsafe(16))
    args = RouterArgs(
        settings_file=str(folder / "router.json"), engine_token_file=str(folder / "engine-token"),
        internal_token_file=str(folder / "internal-token"), state_file=str(folder / "state.db"),
        keys_folder=str(folder / "keys"),
    )  # fmt: skip
    desired, port, log = folder / "serve.json", free_port(), folder / "host.log"
    desired.write_text(json.dumps(desired_state([], router_application(args))))
    command = [sys.executable, "-m", "leanmodel_serving.host", "--desired", str(desired), "--run-dir", str(folder / "run"),
               "--port", str(port), "--die-with-parent"]  # fmt: skip
    with process(core, command, log, RAY_ENV) as found:
        url = f"http://127.0.0.1:{port}"
        until(lambda: get(f"{url}/v1/models", key), log, found)
        yield Subject(url, key, found.pid, folder)


def _prepared(folder: Path, engine: str) -> str:
    """Make our router's folder; return an API key."""
    folder.mkdir()
    key, entry = issue("team-a", GENEROUS, "2026-11-22T00:00:00+00:00")
    (folder / "keys").mkdir()
    (folder / "keys" / f"{entry.id}{SUFFIX}").write_text(entry.to_json())
    (folder / "router.json").write_text(router_settings(engine, "predictive").to_json())
    return key


@contextmanager
def litellm(core: int, folder: Path, engine: str, provider: str = "openai") -> Iterator[Subject]:
    """LiteLLM's proxy: one worker, a master key, prices, no database, no logs."""
    folder.mkdir()
    python, port, key, log = (
        environment(LOCK, "gateway"),
        free_port(),
        "sk-" + secrets.token_hex(16),
        folder / "log",
    )
    config = folder / "config.yaml"
    config.write_text(LITELLM_CONFIG.format(model=MODEL, provider=provider, engine=engine, key=key))
    command = [str(python.with_name("litellm")), "--config", str(config), "--host", "127.0.0.1", "--port", str(port),
               "--num_workers", "1", "--telemetry", "False"]  # fmt: skip
    with process(core, command, log, LITELLM_ENV) as found:
        url = f"http://127.0.0.1:{port}"
        until(lambda: get(f"{url}/v1/models", key), log, found)
        yield Subject(url, key, found.pid, folder)


def litellm_version() -> str:
    """Return which LiteLLM is measured."""
    return version(environment(LOCK, "gateway"), "litellm")
