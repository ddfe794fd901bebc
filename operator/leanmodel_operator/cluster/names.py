"""Names, labels and hashes: everything by which a child is found again. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

GROUP = "leanmodel.io"
VERSION = "v1alpha1"
PLURAL = "leanmodels"
KIND = "LeanModel"
FIELD_MANAGER = "leanmodel-operator"

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "leanmodel"
LABEL_NAME = "leanmodel.io/name"
"""The LeanModel that a child belongs to."""
LABEL_STAGE = "leanmodel.io/stage"
"""compress-large, compress-lean, prove or serve: which part of the loop a child works for."""
LABEL_KEY = "leanmodel.io/key"
"""Hash of the inputs of a Job, or of what a recorded result is about."""
LABEL_PLAN = "leanmodel.io/plan"
"""Hash of the plan alone: finds a result again when the input files can no longer be read."""
LABEL_KIND = "leanmodel.io/kind"
"""plan, result or router: what a ConfigMap holds."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

ANNOTATION_SHAPE = "leanmodel.io/shape"
"""Hash of a Job's resources and image: a failed Job is made anew when it changes."""
ANNOTATION_RETRY = "leanmodel.io/retry"
"""On a LeanModel: a new value tries again what has failed."""
ANNOTATION_RENEW = "leanmodel.io/renew-template"
"""On a LeanModel: a new value takes the operator's newest pod templates, in a second Ray cluster."""
ANNOTATION_INPUTS = "leanmodel.io/inputs"
"""On a LeanModel: where file: sources are: configmap/NAME or pvc/CLAIM[/FOLDER]."""

NAME_LIMIT = 63
RAYSERVICE_LIMIT = 47
"""KubeRay 1.6 refuses longer names of a RayService (utils.MaxRayServiceNameLength)."""
SELECTOR = f"{MANAGED_BY}={MANAGER}"


def child(name: str, *parts: str, limit: int = NAME_LIMIT) -> str:
    """Return the name of a LeanModel's child: ``lm-NAME-PART...``.

    It starts with a letter, as KubeRay and Services want, even where the LeanModel's name does not. Where it
    would be longer than ``limit``, the LeanModel's name is cut and eight digits of its hash tell it apart.
    """
    tail = "".join(f"-{part}" for part in parts)
    full = f"lm-{name}{tail}"
    if len(full) <= limit:
        return full
    room = limit - len(tail) - len("lm-") - 9
    if room < 1:
        raise ValueError(f"{full!r} cannot be made to fit into {limit} characters; shorten {tail!r}")
    return f"lm-{name[:room].rstrip('-')}-{digest(name, 8)}{tail}"


def rayservice(name: str) -> str:
    """Return the name of the RayService, and of the Service that users ask."""
    return child(name, limit=RAYSERVICE_LIMIT)


def digest(value: Any, length: int = 16) -> str:
    """Return the first hex digits of the sha256 of any JSON value; equal values have equal digests."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def labels(name: str, component: str, **own: str) -> dict[str, str]:
    """Return a child's labels.

    Args:
        name: the LeanModel's name.
        component: its part in the whole, such as serving, compress, prove, router.
        own: further labels of our own, by the last part of their key (``stage`` is ``leanmodel.io/stage``).
    """
    return {
        "app.kubernetes.io/name": MANAGER,
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": MANAGER,
        MANAGED_BY: MANAGER,
        LABEL_NAME: name,
        **{f"{GROUP}/{key}": value for key, value in own.items()},
    }


def selector(name: str, **own: str) -> dict[str, str]:
    """Return the labels that pick a LeanModel's pods out, and nobody else's."""
    return {MANAGED_BY: MANAGER, LABEL_NAME: name, **{f"{GROUP}/{key}": value for key, value in own.items()}}


def owner(name: str, uid: str) -> dict[str, Any]:
    """Return the owner reference of every child.

    ``blockOwnerDeletion`` stays false: with it a foreground deletion would wait for each child.
    """
    return {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": name, "uid": uid,
        "controller": True, "blockOwnerDeletion": False,
    }  # fmt: skip


def meta(
    name: str,
    namespace: str,
    labels: dict[str, str],
    owner: dict[str, Any],
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the metadata of a child."""
    result: dict[str, Any] = {
        "name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owner],
    }  # fmt: skip
    if annotations:
        result["annotations"] = annotations
    return result
