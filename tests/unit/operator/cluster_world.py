"""A cluster in memory: holds objects, carries out a plan's writes, and plays Job controller, kubelet, KubeRay and router."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from test_desired_loop import report, result

from leanmodel_api.plan import CompressPlan, ProvePlan
from leanmodel_api.report import Verdict
from leanmodel_api.router import Broken
from leanmodel_operator.cluster.compare import Write, writes
from leanmodel_operator.cluster.observed import Facts, LogSeen, Observed, read
from leanmodel_operator.cluster.plan import Plan, plan
from leanmodel_operator.cluster.settings import Settings
from leanmodel_operator.jobshell import RESULT_PREFIX, failure, success

NOW = "2026-01-01T00:00:00Z"
QUICKSTART = Path(__file__).parents[3] / "examples/quickstart/leanmodel.yaml"
SETTINGS = Settings()
DIGITS = "0123456789abcdef"


def manifest(**spec: Any) -> dict[str, Any]:
    """The quickstart's LeanModel as an API server would hold it, with some fields of its spec replaced."""
    body: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())
    body["metadata"] |= {"namespace": "ml", "uid": "uid-1", "generation": 1, "resourceVersion": "1"}
    body["spec"] |= spec
    return body


class World:
    """One LeanModel's part of a cluster."""

    def __init__(self, body: dict[str, Any]):
        self.body = body
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.counter = 1
        self.verdict: Verdict = "Routed"
        self.broken: set[str] = set()  # revisions that do not start
        self.deaf: set[str] = set()  # revisions that run and do not answer
        self.sick: set[str] = set()  # revisions that ran, and whose replica Serve replaces
        self.late: set[str] = set()  # revisions that have been starting for too long
        self.failing: dict[str, tuple[int, str]] = {}  # stage -> how its Job fails
        self.router_generation: int | None = None
        self.logs: dict[str, LogSeen] = {}
        self.inputs: str | None = "d1"
        self.provider_key = ""
        self.teacher_key = ""
        self.working: set[str] = set()  # stages whose Jobs do not end
        self.promise: Broken | None = None  # what the router's monitors say
        self.down = False
        self.made: list[str] = []  # Jobs ever created
        self.digits: dict[str, str] = {}  # plan -> what its artifact is made of
        self.started: list[str] = []  # applications ever started

    # ------------------------------------------------------------ the operator

    def seen(self) -> Observed:
        serve = self.objects.get(("RayService", "lm-spam-filter"), {})
        apps = serve.get("status", {}).get("activeServiceStatus", {}).get("applicationStatuses", {})
        up = {name for name, app in apps.items() if app["status"] == "RUNNING" and name != "router"}
        router = self.router()
        reachable = {b["revision"] for b in _backends(router)} if router else set()
        facts = Facts(
            answers=frozenset(up & reachable - self.deaf) if not self.down else frozenset(),
            late=frozenset(self.late & reachable),
            silent={name: "/v1/chat/completions: 503 no" for name in sorted(up & reachable & self.deaf)},
            router_generation=self.router_generation, logs=dict(self.logs),
            tokens=("Secret", "lm-spam-filter-tokens") in self.objects, inputs=self.inputs,
            provider_key=self.provider_key, teacher_key=self.teacher_key, broken=self.promise,
        )  # fmt: skip
        return read(self.body, [copy.deepcopy(item) for item in self.objects.values()], facts)

    def decide(self) -> tuple[Plan, list[Write]]:
        seen = self.seen()
        decided = plan(self.body, seen, SETTINGS, NOW)
        return decided, writes(decided, self.body, seen)

    def reconcile(self, stop_after: int | None = None) -> list[Write]:
        """Carry out one turn of the loop, or its first writes alone, as a killed operator would."""
        _, todo = self.decide()
        for write in todo[:stop_after]:
            self.carry_out(write)
        return todo[:stop_after]

    def carry_out(self, write: Write) -> None:
        if write.verb == "status":
            self.body["status"] = copy.deepcopy(write.body)
            self.body["metadata"]["resourceVersion"] = self._next()
        elif write.verb == "delete":
            assert write.ref is not None
            gone = self.objects.pop(write.key)
            assert gone["metadata"]["uid"] == write.ref.uid
            for key, item in list(self.objects.items()):
                if any(o["uid"] == write.ref.uid for o in item["metadata"].get("ownerReferences", ())):
                    del self.objects[key]
        else:
            assert write.body is not None
            old = self.objects.get(write.key)
            item = copy.deepcopy(write.body)
            meta = item["metadata"]
            if old is not None:
                assert write.verb == "apply" and write.version == old["metadata"]["resourceVersion"]
                meta |= {"uid": old["metadata"]["uid"], "generation": old["metadata"]["generation"] + 1}
                item |= {"status": old["status"]} if "status" in old else {}
            else:
                meta |= {"uid": f"{write.key[0]}-{self._next()}", "generation": 1}
                if write.key[0] == "Job":
                    self.made.append(write.key[1])
            meta |= {
                "resourceVersion": self._next(),
                "creationTimestamp": f"2026-01-01T00:{self.counter:05d}",
            }
            self.objects[write.key] = item

    # ------------------------------------------------------------ everybody else

    def play(self) -> None:
        """Let everything get on: Jobs end, applications start, the router reads its settings."""
        for key, item in list(self.objects.items()):
            if key[0] != "Job" or item.get("status"):
                continue
            if item["metadata"]["labels"]["leanmodel.io/stage"] not in self.working:
                self._finish(item)
        serve = self.objects.get(("RayService", "lm-spam-filter"))
        if serve is not None and not self.down:
            self._serve(serve)
        router = self.router()
        if router is not None and serve is not None and not self.down:
            self.router_generation = router["generation"]

    def _finish(self, job: dict[str, Any]) -> None:
        stage = job["metadata"]["labels"]["leanmodel.io/stage"]
        data = self.objects[("ConfigMap", job["metadata"]["name"])]["data"]
        pod_uid = f"pod-{self._next()}"
        if stage in self.failing:
            code, words = self.failing[stage]
            message, ok = json.dumps(failure(code, [words], "step")), False
        else:
            code, ok = 0, True
            said, line = success(self._result(stage, data["plan.json"]))
            message = json.dumps(said)
            if "packed" not in said:
                self.logs[pod_uid] = LogSeen(packed=line.removeprefix(RESULT_PREFIX))
        job["status"] = {
            "conditions": [{"type": "Complete" if ok else "Failed", "status": "True", "reason": "x"}]
        }
        self.objects[("Pod", pod_uid)] = {
            "kind": "Pod",
            "metadata": {
                "name": pod_uid, "uid": pod_uid, "labels": job["spec"]["template"]["metadata"]["labels"],
                "ownerReferences": [{"uid": job["metadata"]["uid"]}],
            },
            "spec": {"containers": [{"resources": {"limits": {"memory": "8Gi"}}}]},
            "status": {
                "phase": "Succeeded" if ok else "Failed",
                "containerStatuses": [
                    {"state": {"terminated": {"reason": "Completed" if ok else "Error", "exitCode": code, "message": message}}}
                ],
            },
        }  # fmt: skip

    def _result(self, stage: str, text: str) -> str:
        if stage == "prove":
            plan = ProvePlan.model_validate_json(text)
            proof = report(self.verdict).model_copy(update={"large": plan.large, "lean": plan.lean})
            return str(proof.model_dump_json(by_alias=True))
        made = CompressPlan.model_validate_json(text)
        # A digit of the key's own, or the next that no other plan has: one pair in sixteen begins alike.
        first = DIGITS.index(made.key()[0])
        free = [digit for digit in DIGITS[first:] + DIGITS[:first] if digit not in self.digits.values()]
        digit = self.digits.setdefault(made.key(), free[0])
        return str(result(made.role, digit).model_copy(update={"plan": made.key()}).to_json())

    def _serve(self, serve: dict[str, Any]) -> None:
        wanted = json.loads(serve["spec"]["serveConfigV2"])["applications"]
        old = serve.get("status", {}).get("activeServiceStatus", {}).get("applicationStatuses", {})
        apps = {}
        for app in wanted:
            name = app["name"]
            if name not in old:
                self.started.append(name)
            bad = name in self.broken
            apps[name] = {
                "status": "DEPLOY_FAILED" if bad else "UNHEALTHY" if name in self.sick else "RUNNING",
                "message": "no memory" if bad else "a health check failed" if name in self.sick else "",
            }
        serve["status"] = {
            "observedGeneration": serve["metadata"]["generation"],
            "activeServiceStatus": {"rayClusterName": "lm-spam-filter-abcde", "applicationStatuses": apps},
            "conditions": [{"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints"}],
        }

    # ------------------------------------------------------------ looking

    def router(self) -> dict[str, Any] | None:
        item = self.objects.get(("ConfigMap", "lm-spam-filter-router"))
        return json.loads(item["data"]["settings.json"]) if item else None

    def applications(self) -> list[str]:
        item = self.objects.get(("RayService", "lm-spam-filter"))
        return [a["name"] for a in json.loads(item["spec"]["serveConfigV2"])["applications"]] if item else []

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.body["status"]["conditions"] if c["type"] == kind)

    def serving(self) -> tuple[str, ...]:
        """Revisions that the router sends requests to now, by the settings it has in force."""
        router = self.router()
        return tuple(b["revision"] for b in _backends(router, dark=False)) if router else ()

    def settle(self, turns: int = 60) -> None:
        """Turn the loop until nothing is written any more and nothing more happens."""
        for _ in range(turns):
            before = json.dumps(sorted((k, v) for k, v in self.objects.items()), default=str)
            wrote = self.reconcile()
            self.play()
            after = json.dumps(sorted((k, v) for k, v in self.objects.items()), default=str)
            if not wrote and before == after:
                return
        raise AssertionError("the loop does not come to rest")

    def edit(self, **spec: Any) -> None:
        self.body["spec"] = {**copy.deepcopy(self.body["spec"]), **spec}
        self.body["metadata"]["generation"] += 1

    def _next(self) -> str:
        self.counter += 1
        return str(self.counter)


def _backends(router: dict[str, Any], dark: bool = True) -> list[dict[str, Any]]:
    found = [router["large"], *([router["lean"]] if router.get("lean") else [])]
    return [*found, *(router.get("dark", []) if dark else [])]
