"""ConfigMaps: the plan of a Job, a recorded result, the router's settings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanmodel_api.router import RouterSettings

from .. import names
from .owner import Owner


def plan_config(owner: Owner, stage: str, key: str, plan: str, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the ConfigMap that a Job reads its plan from; it never changes, since its name is its content's key."""
    return _config(
        owner, names.child(owner.name, stage, key),
        names.labels(owner.name, stage, stage=stage, key=key, plan=plan, kind="plan"), dict(files), True,
    )  # fmt: skip


def result_config(
    owner: Owner, stage: str, key: str, plan: str, *, text: str = "", failure: str = ""
) -> dict[str, Any]:
    """Return the ConfigMap that keeps what a Job found, or what has failed for good.

    Args:
        text: the result as JSON.
        failure: why it failed, in words.
    """
    data = {"result.json": text} if text else {"failure": failure}
    return _config(
        owner, names.child(owner.name, "result", stage, key),
        names.labels(owner.name, stage, stage=stage, key=key, plan=plan, kind="result"), data, True,
    )  # fmt: skip


def router_config(owner: Owner, settings: RouterSettings) -> dict[str, Any]:
    """Return the ConfigMap whose file the router watches: the record of what gets traffic."""
    return _config(
        owner, names.child(owner.name, "router"), names.labels(owner.name, "router", kind="router"),
        {"settings.json": settings.to_json()}, False,
    )  # fmt: skip


def _config(
    owner: Owner, name: str, labels: dict[str, str], data: dict[str, str], immutable: bool
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": names.meta(name, owner.namespace, labels, owner.reference()), "data": data,
    }  # fmt: skip
    if immutable:
        result["immutable"] = True
    return result
