"""What was seen of one LeanModel in the cluster: plain facts, read out of API objects. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from leanmodel_api.progress import ProgressLine
from leanmodel_api.router import Broken, RouterSettings
from leanmodel_api.status import CostSummary

from ..jobshell import unpack
from . import names
from .rayservice import ServeSeen, read_rayservice

JobState = Literal["Running", "Suspended", "Succeeded", "Failed"]
Key = tuple[str, str]
"""Kind and name of an object in the LeanModel's namespace."""


@dataclass(frozen=True)
class PodSeen:
    """A pod, as far as it says why work does not get on.

    Attributes:
        waiting: (reason, message) of a container that cannot start.
        ended: (reason, exit code, message) of a container that has ended last.
        unschedulable: why no node takes it.
        limit: memory limit of its first container.
    """

    name: str
    uid: str
    phase: str
    group: str = ""
    waiting: tuple[str, str] | None = None
    ended: tuple[str, int, str] | None = None
    unschedulable: str = ""
    limit: str = ""
    created: str = ""


@dataclass(frozen=True)
class JobSeen:
    """A Job of ours and its newest pod."""

    name: str
    uid: str
    stage: str
    key: str
    plan: str
    shape: str
    state: JobState
    reason: str = ""
    message: str = ""
    pod: PodSeen | None = None


@dataclass(frozen=True)
class Recorded:
    """A result (or a final failure) that stands in a ConfigMap."""

    name: str
    uid: str
    stage: str
    key: str
    plan: str
    text: str
    failure: str
    created: str


@dataclass(frozen=True)
class LogSeen:
    """What was read of a pod's log: its last progress, and its packed result."""

    progress: ProgressLine | None = None
    packed: str = ""


@dataclass(frozen=True)
class Facts:
    """What no watched object says, and was asked for.

    Attributes:
        answers: revisions through which a real generation has gone, and whose applications are up still.
        silent: why a revision whose application is up does not answer, in the words of its last refusal.
        late: revisions that have been started for longer than they may take, and have never answered.
        router_generation: of the settings that the router has in force; None when it did not say.
        logs: by pod's uid.
        tokens: whether the Secret with the tokens is there (and ours).
        inputs: digest of the inputs' contents; None when they cannot be read; "" when there is nothing to digest.
        missing: what is missing for the inputs, in words.
        taken: objects that are not ours and have names that we need.
        kuberay: whether the API server knows RayServices.
        cost: the router's money, rounded.
        broken: what the router's monitors have found broken; None while it has not said.
        provider_key: why the external provider's key is not there, in words; never anything of the key.
        teacher_key: the same of the external teacher's.
    """

    answers: frozenset[str] = frozenset()
    silent: Mapping[str, str] = field(default_factory=dict)
    late: frozenset[str] = frozenset()
    router_generation: int | None = None
    logs: Mapping[str, LogSeen] = field(default_factory=dict)
    tokens: bool = False
    inputs: str | None = ""
    missing: str = ""
    taken: frozenset[Key] = frozenset()
    kuberay: bool = True
    cost: CostSummary | None = None
    broken: Broken | None = None
    provider_key: str = ""
    teacher_key: str = ""


@dataclass(frozen=True)
class Observed:
    """The whole picture."""

    uid: str
    objects: Mapping[Key, dict[str, Any]]
    foreign: tuple[Key, ...]
    jobs: tuple[JobSeen, ...]
    results: tuple[Recorded, ...]
    router: RouterSettings | None
    serve: ServeSeen | None
    pods: tuple[PodSeen, ...]
    facts: Facts


def read(body: Mapping[str, Any], objects: Iterable[dict[str, Any]], facts: Facts) -> Observed:
    """Return what the objects that carry a LeanModel's label say.

    Objects of an earlier LeanModel of the same name are set apart as ``foreign``: they are being collected, and
    their names are free soon.
    """
    meta = body["metadata"]
    uid = str(meta["uid"])
    mine: dict[Key, dict[str, Any]] = {}
    foreign: list[Key] = []
    pods: list[dict[str, Any]] = []
    for item in objects:
        key = (str(item["kind"]), str(item["metadata"]["name"]))
        if item["kind"] == "Pod":
            pods.append(item)
        elif any(ref.get("uid") == uid for ref in item["metadata"].get("ownerReferences", ())):
            mine[key] = item
        else:
            foreign.append(key)
    newest = _newest_pods(pods)
    serve = next((read_rayservice(item) for key, item in mine.items() if key[0] == "RayService"), None)
    clusters = set(serve.clusters) if serve else set()
    return Observed(
        uid=uid, objects=mine, foreign=tuple(sorted(foreign)), facts=facts,
        jobs=tuple(_job(item, newest) for key, item in sorted(mine.items()) if key[0] == "Job"),
        results=tuple(
            _recorded(item) for key, item in sorted(mine.items()) if key[0] == "ConfigMap" and _kind(item) == "result"
        ),
        router=next(
            (_router(item) for key, item in mine.items() if key[0] == "ConfigMap" and _kind(item) == "router"), None
        ),
        serve=serve,
        pods=tuple(
            _pod(item) for item in pods if item["metadata"].get("labels", {}).get("ray.io/cluster") in clusters
        ),
    )  # fmt: skip


def podless(seen: Observed) -> bool:
    """Say whether a Job has ended well whose result is not recorded and whose pod is not seen."""
    recorded = {(result.stage, result.key) for result in seen.results}
    return any(
        job.state == "Succeeded" and job.pod is None and (job.stage, job.key) not in recorded
        for job in seen.jobs
    )


def job_result(job: JobSeen, facts: Facts) -> str | None:
    """Return the result of a Job that succeeded: from its termination message, or from its pod's log."""
    if job.pod is None or job.pod.ended is None:
        return None
    message = job_message(job)
    log = facts.logs.get(job.pod.uid)
    packed = str(message.get("packed") or (log.packed if log else ""))
    try:
        return unpack(packed, str(message.get("sha256", ""))) if packed else None
    except ValueError:
        return None


def job_message(job: JobSeen) -> dict[str, Any]:
    """Return the termination message of a Job's newest pod; an empty object when it left none."""
    if job.pod is None or job.pod.ended is None:
        return {}
    try:
        message = json.loads(job.pod.ended[2])
    except ValueError:
        return {"error": job.pod.ended[2]} if job.pod.ended[2] else {}
    return message if isinstance(message, dict) else {}


def _kind(item: dict[str, Any]) -> str:
    return str(item["metadata"].get("labels", {}).get(names.LABEL_KIND, ""))


def _newest_pods(pods: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the newest pod by its owner's uid."""
    found: dict[str, dict[str, Any]] = {}
    for pod in sorted(pods, key=lambda item: str(item["metadata"].get("creationTimestamp", ""))):
        for ref in pod["metadata"].get("ownerReferences", ()):
            found[str(ref.get("uid"))] = pod
    return found


def _job(item: dict[str, Any], pods: dict[str, dict[str, Any]]) -> JobSeen:
    meta = item["metadata"]
    state: JobState = "Suspended" if item.get("spec", {}).get("suspend") else "Running"
    reason = message = ""
    for condition in item.get("status", {}).get("conditions", ()):
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            state = "Succeeded" if condition["type"] == "Complete" else "Failed"
            reason, message = str(condition.get("reason", "")), str(condition.get("message", ""))
    pod = pods.get(str(meta.get("uid")))
    labels = meta.get("labels", {})
    return JobSeen(
        name=meta["name"], uid=str(meta.get("uid", "")), stage=labels.get(names.LABEL_STAGE, ""),
        key=labels.get(names.LABEL_KEY, ""), plan=labels.get(names.LABEL_PLAN, ""),
        shape=meta.get("annotations", {}).get(names.ANNOTATION_SHAPE, ""), state=state, reason=reason,
        message=message, pod=_pod(pod) if pod else None,
    )  # fmt: skip


def _recorded(item: dict[str, Any]) -> Recorded:
    meta, data = item["metadata"], item.get("data", {})
    labels = meta.get("labels", {})
    return Recorded(
        name=meta["name"], uid=str(meta.get("uid", "")), stage=labels.get(names.LABEL_STAGE, ""),
        key=labels.get(names.LABEL_KEY, ""), plan=labels.get(names.LABEL_PLAN, ""),
        text=data.get("result.json", ""), failure=data.get("failure", ""),
        created=str(meta.get("creationTimestamp", "")),
    )  # fmt: skip


def _router(item: dict[str, Any]) -> RouterSettings | None:
    try:
        return RouterSettings.model_validate_json(item.get("data", {}).get("settings.json", ""))
    except ValueError:  # edited by hand into something else: it is written anew
        return None


def _pod(item: dict[str, Any]) -> PodSeen:
    meta, status = item["metadata"], item.get("status", {})
    waiting: tuple[str, str] | None = None
    ended: tuple[str, int, str] | None = None
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state = container.get("state", {})
        if "waiting" in state and waiting is None:
            waiting = (str(state["waiting"].get("reason", "")), str(state["waiting"].get("message", "")))
        over = state.get("terminated") or container.get("lastState", {}).get("terminated")
        if over and ended is None:
            ended = (str(over.get("reason", "")), int(over.get("exitCode", 0)), str(over.get("message", "")))
    unschedulable = next(
        (
            str(c.get("message", ""))
            for c in status.get("conditions", ())
            if c.get("type") == "PodScheduled" and c.get("status") == "False"
        ),
        "",
    )
    containers = item.get("spec", {}).get("containers") or [{}]
    return PodSeen(
        name=meta["name"], uid=str(meta.get("uid", "")), phase=str(status.get("phase", "")),
        group=str(meta.get("labels", {}).get("ray.io/group", "")), waiting=waiting, ended=ended,
        unschedulable=unschedulable,
        limit=str(containers[0].get("resources", {}).get("limits", {}).get("memory", "")),
        created=str(meta.get("creationTimestamp", "")),
    )  # fmt: skip
