"""Service accounts without any right, the tokens of the internal ways, the store's claim, disruption budgets. Pure."""

from __future__ import annotations

from typing import Any

from .. import names
from ..settings import Settings
from ..volumes import Claim
from .owner import Owner

TOKEN_KEYS = ("engine", "internal")
"""Between router and engines; and for the internal route, which the prove Job and the operator ask."""


def job_account(owner: Owner) -> dict[str, Any]:
    """Return the Jobs' service account: it is bound to nothing, and its token is not mounted."""
    return _account(owner, names.child(owner.name, "job"), "jobs")


def serve_account(owner: Owner) -> dict[str, Any]:
    """Return the Ray cluster's service account; KubeRay binds the rights of Ray's autoscaler to it."""
    return _account(owner, names.child(owner.name, "serve"), "serving")


def _account(owner: Owner, name: str, component: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": False,
        "metadata": names.meta(name, owner.namespace, names.labels(owner.name, component), owner.reference()),
    }  # fmt: skip


def tokens(owner: Owner) -> dict[str, Any]:
    """Return the Secret of the tokens without its data: random words are put in when it is created."""
    name = names.child(owner.name, "tokens")
    return {
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": True,
        "metadata": names.meta(name, owner.namespace, names.labels(owner.name, "serving"), owner.reference()),
    }  # fmt: skip


def store_claim(owner: Owner, where: Claim, settings: Settings) -> dict[str, Any]:
    """Return the claim of a store of its own; it goes with the LeanModel."""
    spec: dict[str, Any] = {
        "accessModes": [settings.store_access], "resources": {"requests": {"storage": settings.store_size}},
    }  # fmt: skip
    if settings.store_class:
        spec["storageClassName"] = settings.store_class
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec,
        "metadata": names.meta(where.name, owner.namespace, names.labels(owner.name, "store"), owner.reference()),
    }  # fmt: skip


def disruption_budget(owner: Owner) -> dict[str, Any]:
    """Return the budget that keeps a drain from taking the head, without which nothing is routed.

    A pod that is unhealthy already may always go.
    """
    return {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": names.meta(
            names.child(owner.name, "head"), owner.namespace, names.labels(owner.name, "serving"), owner.reference()
        ),
        "spec": {
            "minAvailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(owner.name, part="head")},
        },
    }  # fmt: skip
