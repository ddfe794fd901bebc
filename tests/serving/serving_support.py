"""A host of our own for the tests: real Ray Serve, real vLLM, real HAProxy, two small models."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from leanmodel_api.keys import SUFFIX, KeyLimits, issue
from leanmodel_api.policy import (
    Certificate,
    LabelFreeBound,
    LinearHead,
    PartSizes,
    Policy,
    Predictor,
    Scope,
    SignalSpec,
)
from leanmodel_api.router import Backend, RouterLimits, RouterSettings, Watching
from leanmodel_api.serving import Price
from leanmodel_serving.applications import (
    EngineSettings,
    RouterArgs,
    desired_state,
    engine_application,
    router_application,
)

NAME = "support"
LARGE, LEAN = "large-ten", "lean-four"
LAYERS = {LARGE: 10, LEAN: 4}
READY_S = 600.0
T = TypeVar("T")


def until(look: Callable[[], T], deadline_s: float, what: str) -> T:
    """Return the first truthy value of ``look``; fail after the deadline."""
    deadline = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Say whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def replace(path: Path, text: str) -> None:
    """Rename a new version over a file, as the supervisor does."""
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text)
    fresh.replace(path)


def free_port() -> int:
    """Return a port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def policy(threshold: float, scope: Scope | None = None, kind: str = "cascade") -> Policy:
    """A policy whose confidence is the sigmoid of the mean log-prob: simple enough to compute beside it."""
    predictor = Predictor(
        kind="fine",
        name="test",
        signals=(SignalSpec(name="mean-logprob"),),
        feature_names=("mean_logprob",),
        means=(0.0,),
        scales=(1.0,),
        heads=(LinearHead(intercept=0.0, coefficients=(1.0,)),),
    )
    certificate = Certificate(
        retain=0.95, confidence=0.9, n=1000, p_value=0.01, certified=True, outcome="cascade-certified",
        message="for the tests", parts=PartSizes(fit=1, certify=1000, report=1),
        label_free=LabelFreeBound(estimate=0.1, upper=0.2, confidence=0.9, n=100, part="report", shadow_accepted=1),
    )  # fmt: skip
    return Policy(
        kind=kind, predictor=predictor, threshold=threshold, scope=scope or Scope(), certificate=certificate,
        expected_large_share=0.5,
    ).sealed()  # fmt: skip


def confidence(logprobs: list[float]) -> float:
    """What :func:`policy` makes of an answer's log-probs."""
    return 1.0 / (1.0 + math.exp(-sum(logprobs) / len(logprobs)))


class Host:
    """A ``leanmodel_serving.host`` process and its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.run_dir.mkdir(parents=True)
        self.desired = folder / "serve.json"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: set[int] = set()

    def start(self, *arguments: str) -> None:
        with (self.folder / "host.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "leanmodel_serving.host", "--desired", str(self.desired), "--run-dir",
                 str(self.run_dir), "--port", str(self.port), "--die-with-parent", *arguments],
                stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip

    def status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.run_dir / "status.json").read_text())
        except FileNotFoundError:
            return {}
        self.seen.update(found["pids"])
        return found

    def ready(self, *names: str) -> bool:
        """Say whether the applications take requests; fail when one cannot start or the host ended."""
        assert self.process is not None and self.process.poll() is None, self.log()
        applications = self.status().get("applications", {})
        for name in names:
            found = applications.get(name, {})
            assert found.get("status") not in ("DEPLOY_FAILED", "UNHEALTHY"), found
            if not found.get("ready"):
                return False
        return True

    def log(self) -> str:
        return (self.folder / "host.log").read_text()[-4000:]

    def stop(self, number: int = signal.SIGTERM, deadline_s: float = 60.0) -> int:
        """Send a signal to the host, wait for its end, and hold that none of its processes is left."""
        assert self.process is not None
        self.status()
        self.process.send_signal(number)
        code = self.process.wait(deadline_s)
        until(lambda: not self.left(), 30.0, f"all processes gone, left: {self.left()}")
        return code

    def left(self) -> list[int]:
        return [pid for pid in self.seen if alive(pid)]


class Stack(Host):
    """A host with models and a router."""

    def __init__(self, folder: Path, models: dict[str, Path]) -> None:
        super().__init__(folder)
        self.models = models
        self.token_file = folder / "internal-token"
        self.token_file.write_text(secrets.token_urlsafe(16))
        self.settings_file = folder / "router.json"
        self.keys = folder / "keys"
        self.generation = 0
        self.client = httpx.Client(base_url=self.url, timeout=120.0)

    def want(self, *revisions: str) -> None:
        """Write a desired state with engines of these revisions, and the router."""
        token = str(self.run_dir / "engine-token")
        engines = [
            engine_application(
                EngineSettings(
                    revision=name,
                    model=str(self.models[name]),
                    token_file=token,
                    max_model_length=1024,
                    kv_cache_bytes=256 * 2**20,
                )  # fmt: skip
            )
            for name in revisions
        ]
        router = RouterArgs(
            settings_file=str(self.settings_file),
            engine_token_file=token,
            internal_token_file=str(self.token_file),
            state_file=str(self.folder / "router-state.db"),
            keys_folder=str(self.keys),
        )
        replace(self.desired, json.dumps(desired_state(engines, router_application(router))))

    def backend(self, revision: str, **changes: Any) -> Backend:
        price = {LARGE: "0.36", LEAN: "0.072"}.get(revision, "1")
        known = {
            "url": f"{self.url}/engines/{revision}",
            "price": Price(usd_per_hour=price),
            "tokens_per_second": "100",
        }
        return Backend(revision=revision, **{**known, **changes})

    def write(self, **changes: Any) -> int:
        """Write router settings; return their generation."""
        self.generation += 1
        lean = changes.pop("lean", None)
        settings = RouterSettings(
            generation=self.generation, model=NAME, large=changes.pop("large", None) or self.backend(LARGE), lean=lean,
            limits=changes.pop("limits", None) or RouterLimits(),
            # Shadows would be drawn by lot, and what they cost is nobody's answer.
            watching=changes.pop("watching", None) or Watching(shadowing=0.0), **changes,
        )  # fmt: skip
        replace(self.settings_file, settings.to_json())
        return self.generation

    def configure(self, **changes: Any) -> None:
        """Write router settings and wait until they are in force."""
        wanted = self.write(**changes)
        until(
            lambda: self.client.get("/healthz").json().get("generation") == wanted,
            10.0,
            "the settings are in force",
        )

    def post(self, path: str, body: dict[str, Any], **options: Any) -> httpx.Response:
        return self.client.post(path, json={"model": NAME, "temperature": 0, **body}, **options)

    def internal(self, revision: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token_file.read_text()}"}
        address = f"/internal/revisions/{revision}{path}"
        if body is None:
            return self.client.get(address, headers=headers)
        return self.client.post(address, headers=headers, json=body)

    def running(self, revision: str) -> float:
        """Requests that vLLM computes now, by its own metric."""
        return sample(self.internal(revision, "/metrics").text, "vllm:num_requests_running")

    def replica_pids(self, revision: str) -> list[int]:
        title = f"ray::ServeReplica:{revision}:"
        return [pid for pid in self.status()["pids"] if title_of(pid).startswith(title)]

    def metrics(self) -> str:
        text: str = httpx.get(self.status()["metrics"], timeout=30.0).text
        return text


def issue_to(stack: Stack, tenant: str, **limits: Any) -> str:
    """Make an API key, put its entry where the router looks, and return it."""
    key, entry = issue(tenant, KeyLimits(**limits), "2026-11-22T00:00:00+00:00")
    stack.keys.mkdir(exist_ok=True)
    replace(stack.keys / f"{entry.id}{SUFFIX}", entry.to_json())
    return key


def router_pids(host: Host) -> list[int]:
    """The processes of the router's replicas that are alive."""
    title = "ray::ServeReplica:router:"
    return [pid for pid in host.status()["pids"] if title_of(pid).startswith(title) and alive(pid)]


def title_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def sample(text: str, name: str, **labels: str) -> float:
    """Sum a metric's samples that carry the labels, from Prometheus' text format."""
    total = 0.0
    for line in text.splitlines():
        found = re.fullmatch(r"([^{\s]+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name:
            has = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
            if labels.items() <= has.items():
                total += float(found[3])
    return total


def events(text: str) -> list[dict[str, Any]]:
    """Return the JSON of a stream's events; hold that it ends with [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", text[-500:]
    return [json.loads(line) for line in lines[:-1]]
