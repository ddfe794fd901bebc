"""KubeRay's types, and nothing else's: how a RayService is read, put together and kept. Pure.

Three facts of KubeRay 1.6 shape it (rayservice_controller.go): a change of anything in ``rayClusterConfig`` but
replica counts, tolerations and worker groups appended at the end builds a second whole cluster; replica counts of a
group that is there do not land at all; and of a cluster with Ray's autoscaler only idle pods are taken away. So the
cluster's configuration is kept as it was first written, groups are only ever appended, every cluster has the
autoscaler, and replicas follow what Serve asks for.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leanmodel_api.failure import last_words

API_VERSION = "ray.io/v1"
KIND = "RayService"
PLURAL = "rayservices"
CLUSTER_LABEL = "ray.io/cluster"
FAILED_STATES = ("DEPLOY_FAILED",)
HEAD_CONTAINER = "ray-head"
WORKER_CONTAINER = "ray-worker"
SERVE_PORT = 8000
METRICS_PORT = 8080
ROUTER_RESOURCE = "router"
GROUP_LIMIT = 1000
"""maxReplicas of every group: a later edit would not land, and what bounds replicas is Serve's own configuration."""


@dataclass(frozen=True)
class AppSeen:
    """One Serve application, as KubeRay last saw it."""

    status: str
    message: str = ""


@dataclass(frozen=True)
class ServeSeen:
    """A RayService.

    Attributes:
        applications: what is asked for, by name, in order (the entries of serveConfigV2).
        active: status of the active cluster's applications, by name.
        pending: whether a second cluster is being built.
        current: whether KubeRay has seen the newest generation.
        groups: names of the worker groups, in order.
        config: rayClusterConfig as it stands.
        port: of the Service that it makes; 0 when it names none.
    """

    uid: str
    applications: Mapping[str, dict[str, Any]]
    active: Mapping[str, AppSeen]
    clusters: tuple[str, ...]
    pending: bool
    current: bool
    groups: tuple[str, ...]
    config: Mapping[str, Any]
    annotations: Mapping[str, str]
    ready: bool
    problem: str = ""
    port: int = 0

    def running(self, name: str) -> bool:
        """Return whether an application is up."""
        seen = self.active.get(name)
        return seen is not None and seen.status == "RUNNING"


def read_rayservice(item: Mapping[str, Any]) -> ServeSeen:
    """Return what a RayService says; one whose serveConfigV2 was broken by hand counts as empty."""
    spec, status, meta = item.get("spec", {}), item.get("status", {}), item["metadata"]
    try:
        wanted = json.loads(spec.get("serveConfigV2") or "{}").get("applications", [])
        applications = {str(entry["name"]): dict(entry) for entry in wanted}
    except (ValueError, TypeError, KeyError, AttributeError):
        applications = {}
    active, pending = status.get("activeServiceStatus") or {}, status.get("pendingServiceStatus") or {}
    conditions = {c.get("type"): c for c in status.get("conditions", ())}
    config = spec.get("rayClusterConfig", {})
    ready = conditions.get("Ready", {})
    failed = ready.get("reason") in ("ValidationFailed", "InitializingTimeout")
    seen = active if active.get("applicationStatuses") else pending
    return ServeSeen(
        uid=str(meta.get("uid", "")), applications=applications,
        active={
            name: AppSeen(str(app.get("status", "")), _message(app))
            for name, app in (seen.get("applicationStatuses") or {}).items()
        },
        clusters=tuple(str(part["rayClusterName"]) for part in (active, pending) if part.get("rayClusterName")),
        pending=bool(active.get("rayClusterName") and pending.get("rayClusterName")),
        current=int(status.get("observedGeneration", 0)) >= int(meta.get("generation", 0)),
        groups=tuple(str(group.get("groupName")) for group in config.get("workerGroupSpecs", ())),
        config=config, annotations=meta.get("annotations", {}), ready=ready.get("status") == "True",
        problem=str(ready.get("message", "")) if failed else "", port=_port(spec),
    )  # fmt: skip


def _port(spec: Mapping[str, Any]) -> int:
    ports = ((spec.get("serveService") or {}).get("spec") or {}).get("ports") or [{}]
    return int(ports[0].get("port") or 0)


def _message(app: Mapping[str, Any]) -> str:
    parts = [str(app.get("message") or "")]
    parts += [str(d.get("message") or "") for d in (app.get("serveDeploymentStatuses") or {}).values()]
    return last_words(" ".join(part for part in parts if part))


def serve_config(applications: Iterable[Mapping[str, Any]]) -> str:
    """Return serveConfigV2: JSON (which is YAML), one spelling for one content, since KubeRay compares text."""
    return json.dumps({"applications": list(applications)}, sort_keys=True, separators=(",", ":"))


def application(
    name: str,
    import_path: str,
    prefix: str,
    args: Mapping[str, Any],
    deployment: str,
    resource: str,
    amount: float,
    replicas: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return one entry of serveConfigV2.

    Args:
        deployment: the application's one deployment, whose options are set here.
        resource: Ray resource that binds its replicas to one kind of pod; a replica takes ``amount`` of it.
        replicas: least and most; None leaves one.
    """
    options: dict[str, Any] = {
        "name": deployment, "ray_actor_options": {"num_cpus": 0, "resources": {resource: amount}},
    }  # fmt: skip
    if replicas is not None:
        options |= scaling(*replicas)
    return {
        "name": name, "import_path": import_path, "route_prefix": prefix, "args": dict(args), "deployments": [options],
    }  # fmt: skip


def head_mounts(config: Mapping[str, Any]) -> set[str]:
    """Return the paths that a cluster's head has mounts at."""
    spec = config.get("headGroupSpec", {}).get("template", {}).get("spec", {})
    found = [container for container in spec.get("containers", ()) if container.get("name") == HEAD_CONTAINER]
    return {str(mount.get("mountPath")) for container in found for mount in container.get("volumeMounts", ())}


def scaling(low: int, high: int) -> dict[str, Any]:
    """Return how many replicas a deployment has: a number, or bounds between which the load decides."""
    if low == high:
        return {"num_replicas": low}
    return {
        "autoscaling_config": {
            "min_replicas": low, "max_replicas": high, "initial_replicas": max(low, 1),
            # Requests under way per replica that one more replica is wanted for; the engine batches up to 64.
            "target_ongoing_requests": 16, "upscale_delay_s": 15.0, "downscale_delay_s": 300.0,
        }
    }  # fmt: skip


def rescaled(entry: Mapping[str, Any], low: int, high: int) -> dict[str, Any]:
    """Return an application with other bounds of its replicas; Serve changes these in place."""
    result = copy.deepcopy(dict(entry))
    for options in result.get("deployments", ()):
        options.pop("num_replicas", None)
        options.pop("autoscaling_config", None)
        options.update(scaling(low, high))
    return result


def worker_group(name: str, template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a worker group: one pod holds one replica, and Ray's autoscaler makes as many as Serve asks for."""
    return {
        "groupName": name, "replicas": 1, "minReplicas": 0, "maxReplicas": GROUP_LIMIT,
        "rayStartParams": {}, "resources": {"CPU": "1", name: "1"}, "template": dict(template),
    }  # fmt: skip


def cluster_config(
    version: str,
    head: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    autoscaler: Mapping[str, str],
    pull_policy: str,
    redis: tuple[str, str] | None,
) -> dict[str, Any]:
    """Return rayClusterConfig.

    Args:
        head: pod template of the head.
        autoscaler: ``cpu`` and ``memory`` of the autoscaler's container.
        redis: address, and name of the Secret with its password (or ""), for a head that may die.
    """
    result: dict[str, Any] = {
        "rayVersion": version,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "idleTimeoutSeconds": 60, "imagePullPolicy": pull_policy,
            "resources": {
                "requests": {"cpu": autoscaler["cpu"], "memory": autoscaler["memory"]},
                "limits": {"cpu": "1", "memory": autoscaler["memory"]},
            },
        },
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0"},
            "resources": {"CPU": "1", ROUTER_RESOURCE: "1"},
            "template": dict(head),
        },
        "workerGroupSpecs": [dict(group) for group in groups],
    }  # fmt: skip
    if redis is not None:
        options: dict[str, Any] = {"redisAddress": redis[0]}
        if redis[1]:
            options["redisPassword"] = {"valueFrom": {"secretKeyRef": {"name": redis[1], "key": "password"}}}
        result["gcsFaultToleranceOptions"] = options
    return result


def appended(config: Mapping[str, Any], groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a cluster's configuration as it is, with the groups that it does not have yet at the end."""
    known = config.get("workerGroupSpecs", ())
    have = {group.get("groupName") for group in known}
    new = [dict(group) for group in groups if group["groupName"] not in have]
    # Shared with what was seen, which nobody changes: a copy of all of it would be a third of a turn's time.
    return {**config, "workerGroupSpecs": [*known, *new]}


def ray_service(
    meta: Mapping[str, Any],
    service: Mapping[str, Any],
    config: Mapping[str, Any],
    applications: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the RayService.

    Args:
        meta: its metadata.
        service: the Service that KubeRay makes and turns to a new cluster when there is one.
        config: rayClusterConfig.
        applications: entries of serveConfigV2 in order.
    """
    return {
        "apiVersion": API_VERSION, "kind": KIND, "metadata": dict(meta),
        "spec": {
            "serveConfigV2": serve_config(applications),
            "serveService": dict(service),
            "upgradeStrategy": {"type": "NewCluster"},
            "rayClusterConfig": dict(config),
        },
    }  # fmt: skip
