"""What all our pods have in common: the least of rights, and a user's own changes on top. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from leanmodel_api.external import KEY_FIELD
from leanmodel_api.ledger import PASSWORD_FIELD, RedisStore

from ..settings import Settings

TOKENS_PATH = "/tokens"
SCRATCH_PATH = "/scratch"
PROVIDER_PATH = "/provider"
REDIS_PATH = "/redis"
CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
}  # fmt: skip


def pod_security(settings: Settings) -> dict[str, Any]:
    """Return the security context of a pod: nobody special, and files of volumes in its own group."""
    who = settings.run_as
    return {
        "runAsNonRoot": True, "runAsUser": who, "runAsGroup": who, "fsGroup": who,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip


def scratch() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return volumes and mounts of what may be written beside the store: /tmp and a folder of our own."""
    volumes = [{"name": "tmp", "emptyDir": {}}, {"name": "scratch", "emptyDir": {}}]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "scratch", "mountPath": SCRATCH_PATH}]
    return volumes, mounts


def tokens_volume(secret: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return volume and mount of the tokens, readable by the pod's group alone."""
    volume = {"name": "tokens", "secret": {"secretName": secret, "defaultMode": 0o440}}
    return volume, {"name": "tokens", "mountPath": TOKENS_PATH, "readOnly": True}


def provider_key_file(secret: str) -> str:
    """Return where the router finds the key of a Secret: one alone is mounted, whatever its name."""
    return f"{PROVIDER_PATH}/{KEY_FIELD}"


def provider_volume(secret: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return volume and mount of an external provider's key, which the kubelet keeps up to date.

    It is optional: without a key the provider is not asked, and everything else goes on.
    """
    source = {
        "secretName": secret, "defaultMode": 0o440, "optional": True,
        "items": [{"key": KEY_FIELD, "path": KEY_FIELD}],
    }  # fmt: skip
    mount = {"name": "provider", "mountPath": PROVIDER_PATH, "readOnly": True}
    return {"name": "provider", "secret": source}, mount


def redis_volume(secret: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return volume and mount of a Redis' password, which the kubelet keeps up to date.

    It is optional: without it the ledger cannot be asked, which the router says, and the pod starts all the same. Where
    there is no password an empty folder tells that the pod's router knows of Redis at all.
    """
    mount = {"name": "redis", "mountPath": REDIS_PATH, "readOnly": True}
    if secret is None:
        return {"name": "redis", "emptyDir": {}}, mount
    source = {
        "secretName": secret, "defaultMode": 0o440, "optional": True,
        "items": [{"key": PASSWORD_FIELD, "path": PASSWORD_FIELD}],
    }  # fmt: skip
    return {"name": "redis", "secret": source}, mount


def redis_password_file(store: RedisStore) -> str | None:
    """Return where the router finds a Redis' password; None where there is none."""
    return None if store.password_secret is None else f"{REDIS_PATH}/{PASSWORD_FIELD}"


def environment(values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return environment variables as a container lists them, by name."""
    return [{"name": name, "value": values[name]} for name in sorted(values)]


def bounds(cpu: str, memory: str, gpu: int = 0) -> dict[str, Any]:
    """Return requests and limits: memory is the same in both, so that a node's pressure takes others first."""
    requests: dict[str, str] = {"cpu": cpu, "memory": memory}
    limits: dict[str, str] = {"memory": memory}
    if gpu:
        requests["nvidia.com/gpu"] = limits["nvidia.com/gpu"] = str(gpu)
    return {"requests": requests, "limits": limits}


def pull_secrets(found: Iterable[str]) -> dict[str, Any]:
    """Return imagePullSecrets, or nothing where there are none."""
    listed = [{"name": name} for name in found]
    return {"imagePullSecrets": listed} if listed else {}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with a user's changes: objects merge, lists of named things merge by name, the rest is replaced.

    The first container is ours under whatever name: an override that names no container of ours adds one.
    """
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        known = result.get(key)
        if isinstance(known, dict) and isinstance(value, Mapping):
            result[key] = merged(known, value)
        elif isinstance(known, list) and isinstance(value, list) and _named(known) and _named(value):
            result[key] = _merged_lists(known, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _named(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and "name" in item for item in items)


def _merged_lists(base: list[dict[str, Any]], over: list[dict[str, Any]]) -> list[dict[str, Any]]:
    changes = {item["name"]: item for item in over}
    known = {item["name"] for item in base}
    return [
        *(merged(item, changes.get(item["name"], {})) for item in base),
        *(copy.deepcopy(item) for item in over if item["name"] not in known),
    ]
