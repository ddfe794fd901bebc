"""Kubernetes' discovery for a Prometheus without it: Debian's is built without, and knows static targets alone.

What Prometheus would find by itself is listed from the API server under the names that Prometheus gives it
(``__meta_kubernetes_…``); which of it is scraped, and under which labels, Prometheus decides by the relabelings that
the monitors gave, as in a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from kube_client import KubeClient

Object = dict[str, Any]
Target = tuple[str, dict[str, str]]
META = "__meta_kubernetes_"


def discovered(api: KubeClient, config: Object) -> Object:
    """Return Prometheus' configuration with every discovery replaced by what it finds now."""
    return config | {"scrape_configs": [_job(api, job) for job in config["scrape_configs"]]}


def _job(api: KubeClient, job: Object) -> Object:
    left = {key: value for key, value in job.items() if key != "kubernetes_sd_configs"}
    static = []
    for wanted in job["kubernetes_sd_configs"]:
        for namespace in (wanted.get("namespaces") or {}).get("names") or [None]:
            find = {"pod": _pods, "endpoints": _endpoints}[wanted["role"]]
            static += [{"targets": [address], "labels": labels} for address, labels in find(api, namespace)]
    return left | {"static_configs": static}


def _pods(api: KubeClient, namespace: str | None) -> Iterator[Target]:
    for pod in _list(api, "Pod", namespace):
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", ()):
                address = f"{pod.get('status', {}).get('podIP', '')}:{port['containerPort']}"
                yield (
                    address,
                    _of_pod(pod, container["name"])
                    | {f"{META}pod_container_port_name": port.get("name", "")},
                )


def _endpoints(api: KubeClient, namespace: str | None) -> Iterator[Target]:
    pods = {(p["metadata"]["namespace"], p["metadata"]["name"]): p for p in _list(api, "Pod", namespace)}
    services = {
        (s["metadata"]["namespace"], s["metadata"]["name"]): s for s in _list(api, "Service", namespace)
    }
    for found in _list(api, "Endpoints", namespace):
        where = found["metadata"]["namespace"]
        service = services.get((where, found["metadata"]["name"]))
        if service is None:
            continue
        for subset in found.get("subsets") or ():
            for address in subset.get("addresses") or ():
                target = address.get("targetRef") or {}
                labels = {f"{META}namespace": where, f"{META}service_name": service["metadata"]["name"]}
                labels |= _labels("service", service)
                labels |= {
                    f"{META}endpoint_address_target_{key}": target.get(key, "") for key in ("kind", "name")
                }
                pod = pods.get((where, target.get("name", "")))
                if pod is not None:
                    labels |= _of_pod(pod, pod["spec"]["containers"][0]["name"])
                for port in subset["ports"]:
                    named = {f"{META}endpoint_port_name": port.get("name", "")}
                    yield f"{address['ip']}:{port['port']}", labels | named


def _of_pod(pod: Object, container: str) -> dict[str, str]:
    return {
        f"{META}namespace": pod["metadata"]["namespace"], f"{META}pod_name": pod["metadata"]["name"],
        f"{META}pod_container_name": container, f"{META}pod_phase": pod.get("status", {}).get("phase", ""),
        **_labels("pod", pod),
    }  # fmt: skip


def _labels(kind: str, found: Object) -> dict[str, str]:
    result = {}
    for key, value in (found["metadata"].get("labels") or {}).items():
        name = re.sub(r"[^a-zA-Z0-9_]", "_", key)
        result |= {f"{META}{kind}_label_{name}": value, f"{META}{kind}_labelpresent_{name}": "true"}
    return result


def _list(api: KubeClient, kind: str, namespace: str | None) -> Iterable[Object]:
    found: list[Object] = api.ask("GET", api.path("v1", kind, namespace))["items"]
    return found
