"""A release that runs and is watched: the real operator under the release's own rights, found by a real Prometheus.

No node is needed: the Deployment's pod exists in the API server, and this machine's process stands for its container,
with the environment that the pod says. The Prometheus operator turns the release's monitors and rules into a
configuration, and Debian's Prometheus runs with it (discovery.py says how it finds its targets).
"""

from __future__ import annotations

import base64
import gzip
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from cluster import binaries
from cluster.control_plane import ControlPlane
from cluster.prometheus import Prometheus
from cluster.servers import Server, free_ports
from discovery import discovered
from kube_client import KubeClient, until
from server_support import token_kubeconfig

Object = dict[str, Any]
MONITORING = "monitoring.coreos.com/v1"
SCRAPE = "1s"
NODE = "no-machine"
"""A node that there is in the API server alone: without one, no pod gets behind a Service."""


def pods(api: KubeClient, namespace: str, labels: str) -> list[Object]:
    """The pods with these labels."""
    found: list[Object] = api.ask("GET", api.path("v1", "Pod", namespace), labelSelector=labels)["items"]
    return found


def let_run(api: KubeClient, namespace: str, name: str, address: str) -> None:
    """Say of a pod what a scheduler and a kubelet would: it has a node, runs, is ready, and has this address."""
    api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    bound = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name},
        "target": {"kind": "Node", "name": NODE},
    }
    api.ask("POST", f"{api.path('v1', 'Pod', namespace, name)}/binding", bound)
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    path = api.path("v1", "Pod", namespace, name)
    headers = {"Content-Type": "application/merge-patch+json"}
    api.ask("PATCH", f"{path}/status", {"status": status}, headers=headers)


@contextmanager
def running(server: Server) -> Iterator[None]:
    """Start a server, and stop it afterwards."""
    server.start()
    try:
        yield
    finally:
        server.stop()


@contextmanager
def operator_of(api: KubeClient, plane: ControlPlane, pod: Object, folder: Path) -> Iterator[Server]:
    """The operator as a pod of the release would run it: its environment, and its service account's rights alone."""
    namespace, spec = pod["metadata"]["namespace"], pod["spec"]
    (container,) = spec["containers"]
    fields = {"metadata.name": pod["metadata"]["name"], "metadata.namespace": namespace}
    said = {e["name"]: e.get("value") or fields.get(e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", ""), "")
            for e in container["env"]}  # fmt: skip
    authority = plane.authority.pair.certificate
    who = (namespace, spec["serviceAccountName"])
    config = token_kubeconfig(api, plane.place.url, authority, who, folder / "operator.kubeconfig")
    server = Server(
        "operator", [Path(sys.executable), "-m", "leanmodel_operator", *container.get("args", ())],
        folder / "operator.log", variables=os.environ | said | {"KUBECONFIG": str(config)},
    )  # fmt: skip
    with running(server):
        yield server


@contextmanager
def prometheus_operator(plane: ControlPlane, folder: Path) -> Iterator[Server]:
    """The Prometheus operator, for all namespaces."""
    (port,) = free_ports(1)
    server = Server(
        "prometheus-operator",
        [binaries.find("prometheus-operator"), f"-apiserver={plane.place.url}",
         f"-ca-file={plane.authority.pair.certificate}", f"-cert-file={plane.admin.certificate}",
         f"-key-file={plane.admin.key}", f"-web.listen-address=127.0.0.1:{port}"],
        folder / "prometheus-operator.log",
    )  # fmt: skip
    with running(server):
        yield server


def wanted_prometheus(plane: ControlPlane, namespace: str) -> Object:
    """A Prometheus that takes every monitor and rule, and finds its targets in this API server."""
    return {
        "apiVersion": MONITORING, "kind": "Prometheus", "metadata": {"name": "watch", "namespace": namespace},
        "spec": {
            "version": "v2.42.0", "scrapeInterval": SCRAPE, "evaluationInterval": SCRAPE, "replicas": 1,
            "serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {},
            "podMonitorSelector": {}, "podMonitorNamespaceSelector": {},
            "ruleSelector": {}, "ruleNamespaceSelector": {},
            "apiserverConfig": {
                "host": plane.place.url,
                "tlsConfig": {"caFile": str(plane.authority.pair.certificate), "certFile": str(plane.admin.certificate),
                              "keyFile": str(plane.admin.key)},
            },
        },
    }  # fmt: skip


def configuration(api: KubeClient, namespace: str, folder: Path) -> Object | None:
    """What the Prometheus operator has made of monitors and rules so far; None before there is any."""
    secrets = api.ask("GET", api.path("v1", "Secret", namespace))["items"]
    found = [s["data"] for s in secrets if s["metadata"]["name"] == "prometheus-watch"]
    maps = api.ask("GET", api.path("v1", "ConfigMap", namespace))["items"]
    rules = [m["data"] for m in maps if m["metadata"]["name"].startswith("prometheus-watch-rulefiles-")]
    if not found or "prometheus.yaml.gz" not in found[0] or not any(rules):
        return None
    text = gzip.decompress(base64.b64decode(found[0]["prometheus.yaml.gz"])).decode()
    # The sidecar of a Prometheus pod fills these in.
    config: Object = yaml.safe_load(text.replace("$(SHARD)", "0").replace("$(POD_NAME)", "watch-0"))
    (folder / "rules").mkdir(exist_ok=True)
    for data in rules:
        for name, rule in data.items():
            (folder / "rules" / name).write_text(rule)
    config["rule_files"] = [str(folder / "rules" / "*.yaml")]
    return config


@contextmanager
def prometheus_by_monitors(
    api: KubeClient, plane: ControlPlane, namespace: str, jobs: set[str], folder: Path
) -> Iterator[Prometheus]:
    """A Prometheus with the configuration that the monitors and rules in the API server give, once it has these jobs."""
    with prometheus_operator(plane, folder) as maker:
        api.create(wanted_prometheus(plane, namespace), namespace)

        def made() -> Object | None:
            assert maker.process is not None and maker.process.poll() is None, maker.failure("ended")
            config = configuration(api, namespace, folder)
            names = {job["job_name"] for job in (config or {}).get("scrape_configs") or ()}
            return config if {name.rpartition("/")[0] for name in names} >= jobs else None

        config = until(made, f"the Prometheus operator has made {', '.join(sorted(jobs))}", 60.0)
    running = Prometheus(folder / "prometheus", discovered(api, config))
    running.start()
    try:
        yield running
    finally:
        running.stop()
