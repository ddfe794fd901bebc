"""The RayService of a LeanModel: head, a worker group per shape, an application per revision. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from leanmodel_api.base import quantity
from leanmodel_api.ledger import RedisAt, redis_at
from leanmodel_api.resource import LeanModel
from leanmodel_api.serving import ModelServing

from ...desired import Role, Served
from .. import names, rayservice, volumes
from ..settings import Settings
from .owner import Owner
from .pods import (
    CONTAINER_SECURITY,
    REDIS_PATH,
    SCRATCH_PATH,
    TOKENS_PATH,
    bounds,
    environment,
    merged,
    pod_security,
    provider_volume,
    pull_secrets,
    redis_password_file,
    redis_volume,
    scratch,
    tokens_volume,
)

ROUTER_APPLICATION = "router"
ROUTER_PATH = "/router"
KEYS_PATH = "/keys"
STATE_PATH = f"{SCRATCH_PATH}/state"
ENGINE_PREFIX = "/engines"
ENGINES = {
    "vLLM": "leanmodel_serving.engines.vllm:build",
    "ONNXRuntime": "leanmodel_serving.engines.onnx:build",
}
"""As leanmodel_serving.applications has them: the operator's room may not import the data plane's."""

_SERVE_ENVIRONMENT = {
    "HOME": SCRATCH_PATH,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{SCRATCH_PATH}/haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{SCRATCH_PATH}/admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": SCRATCH_PATH,
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{SCRATCH_PATH}/server-state",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{SCRATCH_PATH}/metrics.sock",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
"""As the local host sets them (leanmodel_serving.host.local_ray), with writable places of the pod."""


def engine_url(revision: str) -> str:
    """Return a revision's address as the router in the head's pod reaches it: its own node's HAProxy."""
    return f"http://127.0.0.1:{rayservice.SERVE_PORT}{ENGINE_PREFIX}/{revision}"


def group_name(role: Role, serving: ModelServing, image: str) -> str:
    """Return the name of the worker group for a model of this shape; equal shapes share one."""
    parts = [serving.resources.model_dump(mode="json"), serving.engine, image]
    return f"{role.lower()}-{names.digest(parts, 8)}"


def engine_application(served: Served, image: str) -> dict[str, Any]:
    """Return the application of one revision."""
    serving, revision = served.serving, served.revision
    args = {
        "revision": revision.name,
        "model": volumes.artifact_path(revision.artifact),
        "tokenFile": f"{TOKENS_PATH}/engine",
        "dtype": serving.dtype,
        "maxModelLength": serving.max_model_length,
        "kvCacheBytes": int(quantity(serving.kv_cache)),
        "threads": max(1, int(quantity(serving.resources.cpu))),
    }
    return rayservice.application(
        revision.name, ENGINES[serving.engine], f"{ENGINE_PREFIX}/{revision.name}", args, "Engine",
        group_name(served.role, serving, image), 1.0, (serving.min_replicas, serving.max_replicas),
    )  # fmt: skip


def ledger_redis(owner: Owner, model: LeanModel) -> RedisAt | None:
    """Return the Redis that keeps the ledger, as the router is told it; None where a file does."""
    ledger = model.spec.serving.router.ledger
    if ledger is None:
        return None
    return redis_at(ledger.redis, owner.namespace, owner.name, redis_password_file(ledger.redis))


def router_application(
    mounted: Collection[str] = (KEYS_PATH,), replicas: int = 1, redis: RedisAt | None = None
) -> dict[str, Any]:
    """Return the router's application; all that may change later stands in the watched file.

    Args:
        replicas: how many processes; a change of their number alone restarts none of them.
        mounted: paths that the head's pod has mounts at. One that was made before there were keys keeps the router of
            that time, which would not start with what it does not know.
        redis: what keeps the ledger; None: a file does.
    """
    keyed = KEYS_PATH in mounted
    args = {
        "settingsFile": f"{ROUTER_PATH}/settings.json",
        "engineTokenFile": f"{TOKENS_PATH}/engine",
        "internalTokenFile": f"{TOKENS_PATH}/internal",
        "stateFile": f"{STATE_PATH if keyed else SCRATCH_PATH}/router-state.db",
        **({"keysFolder": KEYS_PATH} if keyed else {}),
        **({"redis": _json(redis)} if redis is not None and REDIS_PATH in mounted else {}),
        "reportsFolder": f"{volumes.STORE_PATH}/{volumes.REPORTS}",
    }
    return rayservice.application(
        ROUTER_APPLICATION, "leanmodel_serving.router.deployment:build", "/", args, "Router",
        rayservice.ROUTER_RESOURCE, 0.001, (replicas, replicas) if replicas > 1 else None,
    )  # fmt: skip


def _json(part: RedisAt) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)


def service(owner: Owner, port: int) -> dict[str, Any]:
    """Return the Service that users ask; KubeRay makes it once everything of the first hour is up."""
    return {
        "metadata": {"name": names.rayservice(owner.name), "labels": names.labels(owner.name, "endpoint")},
        "spec": {
            "type": "ClusterIP",
            "ports": [
                {"name": "serve", "port": port, "targetPort": rayservice.SERVE_PORT, "protocol": "TCP"}
            ],
        },
    }  # fmt: skip


def head_template(owner: Owner, model: LeanModel, settings: Settings) -> dict[str, Any]:
    """Return the pod template of the head, on which the router runs."""
    router, replicas = model.spec.serving.router.resources, model.spec.serving.router.replicas
    cpu = quantity(settings.head_cpu) + replicas * quantity(router.cpu)
    memory = quantity(settings.head_memory) + replicas * quantity(router.memory)
    config = {"name": "router", "configMap": {"name": names.child(owner.name, "router")}}
    container = {
        "ports": [
            {"name": "gcs", "containerPort": 6379, "protocol": "TCP"},
            {"name": "dashboard", "containerPort": 8265, "protocol": "TCP"},
            {"name": "client", "containerPort": 10001, "protocol": "TCP"},
            {"name": "serve", "containerPort": rayservice.SERVE_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": rayservice.METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": bounds(f"{round(cpu * 1000)}m", f"{round(memory / 2**20)}Mi"),
    }
    # There from the beginning, though it be empty: a Secret that is made later reaches the pod without a new template.
    keys = {
        "name": "keys",
        "secret": {"secretName": names.child(owner.name, "keys"), "optional": True, "defaultMode": 0o440},
    }
    vols = [config, keys]
    mounts = [
        {"name": "router", "mountPath": ROUTER_PATH, "readOnly": True},
        {"name": "keys", "mountPath": KEYS_PATH, "readOnly": True},
    ]
    if model.spec.serving.router.state is not None:
        where = volumes.claim(model.spec.serving.router.state)
        vols.append({"name": "state", "persistentVolumeClaim": {"claimName": where.name}})
        mounts.append(
            {"name": "state", "mountPath": STATE_PATH, **({"subPath": where.folder} if where.folder else {})}
        )
    fallback = model.spec.routing.fallback
    if fallback is not None and fallback.external.api_key_secret is not None:
        # Mounted whether it is allowed or not, so that allowing it needs no new pods; the settings alone allow.
        volume, mount = provider_volume(fallback.external.api_key_secret)
        vols.append(volume)
        mounts.append(mount)
    ledger = model.spec.serving.router.ledger
    if ledger is not None:
        volume, mount = redis_volume(ledger.redis.password_secret)
        vols.append(volume)
        mounts.append(mount)
    return _template(owner, model, settings, "head", rayservice.HEAD_CONTAINER, container, vols, mounts)


def worker_template(owner: Owner, model: LeanModel, role: Role, settings: Settings) -> dict[str, Any]:
    """Return the pod template of the pods that hold one model's replicas."""
    serving = model.spec.serving.large if role == "Large" else model.spec.serving.lean
    container = {
        "ports": [{"name": "metrics", "containerPort": rayservice.METRICS_PORT, "protocol": "TCP"}],
        "resources": bounds(serving.resources.cpu, serving.resources.memory, serving.resources.gpu),
    }
    part = role.lower()
    return _template(owner, model, settings, part, rayservice.WORKER_CONTAINER, container, [], [])


def _template(
    owner: Owner,
    model: LeanModel,
    settings: Settings,
    part: str,
    container_name: str,
    container: dict[str, Any],
    volumes_more: list[dict[str, Any]],
    mounts_more: list[dict[str, Any]],
) -> dict[str, Any]:
    store = volumes.store(model, settings)
    vols, mounts = scratch()
    token_volume, token_mount = tokens_volume(names.child(owner.name, "tokens"))
    vols += [volumes.store_volume(store), token_volume, *volumes_more]
    mounts += [volumes.store_mount(store, read_only=True), token_mount, *mounts_more]
    pod: dict[str, Any] = {
        "serviceAccountName": names.child(owner.name, "serve"),
        # Ray's autoscaler, a container of the head's pod, talks to the API server; workers have no business there.
        "automountServiceAccountToken": part == "head",
        "enableServiceLinks": False,
        "securityContext": pod_security(settings),
        "volumes": vols,
        "containers": [
            {
                "name": container_name, "image": settings.server_image, "imagePullPolicy": settings.image_pull_policy,
                "env": environment(_SERVE_ENVIRONMENT),
                "securityContext": CONTAINER_SECURITY,
                "volumeMounts": mounts,
                **container,
            }
        ],
        **pull_secrets(settings.serving_pull_secrets),
    }  # fmt: skip
    if settings.serving_priority_class:
        pod["priorityClassName"] = settings.serving_priority_class
    template = {
        "metadata": {"labels": {**names.labels(owner.name, "serving"), f"{names.GROUP}/part": part}},
        "spec": pod,
    }
    override = (model.spec.serving.overrides or {}).get("podTemplate")
    return merged(template, override) if isinstance(override, dict) else template
