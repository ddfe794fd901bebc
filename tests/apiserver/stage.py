"""What stands around the operator in these tests, made by plain functions: fixtures and benchmarks use the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from cluster.control_plane import ControlPlane
from faulty_proxy import Proxy
from kube_client import KubeClient, RefusedError, until
from simulated_router import SimulatedRouter


def connect(plane: ControlPlane) -> KubeClient:
    """Returns a client of its own with an administrator's rights."""
    return KubeClient(
        plane.place.url, plane.authority.pair.certificate, plane.admin.certificate, plane.admin.key
    )


def define(api: KubeClient, path: Path) -> dict[str, Any]:
    """Applies a CustomResourceDefinition and waits until the server serves its kind; returns it."""
    wanted = yaml.safe_load(path.read_text())
    api.apply(wanted)
    version = f"{wanted['spec']['group']}/{wanted['spec']['versions'][0]['name']}"

    def established() -> Any:
        name = wanted["metadata"]["name"]
        found = api.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)
        true = {c["type"] for c in found["status"].get("conditions") or [] if c["status"] == "True"}
        return found if {"Established", "NamesAccepted"} <= true else None

    def served() -> bool:
        try:
            listed = api.ask("GET", f"/apis/{version}")["resources"]
            api.ask("GET", f"/apis/{version}/{wanted['spec']['names']['plural']}")
        except RefusedError:
            return False
        return wanted["spec"]["names"]["kind"] in {entry["kind"] for entry in listed}

    found: dict[str, Any] = until(established, "the definition is established", 120)
    until(served, "its kind is in the discovery", 120)
    return found


def proxy_before(plane: ControlPlane) -> Proxy:
    """Returns a proxy before an API server, which asks as the administrator."""
    return Proxy(plane.place.url, plane.authority.pair.certificate, plane.admin.certificate, plane.admin.key)


def flags_for(namespace: str, routers: SimulatedRouter) -> list[str]:
    """Returns the flags of an operator that looks after one namespace, its Lease in it, and asks our routers."""
    return [
        "--namespaces", namespace, "--lease-namespace", namespace, "--endpoint", routers.endpoint,
        "--metrics-endpoint", f"{routers.endpoint}/metrics",
    ]  # fmt: skip
