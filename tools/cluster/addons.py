"""What every node runs as pods: CoreDNS behind the address that pods ask, and the KubeRay operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import binaries
from .api import Api
from .images import PROGRAMS
from .layout import DNS_ADDRESS

Object = dict[str, Any]

COREFILE = """.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 1
    }
    forward . /etc/resolv.conf
    cache 1
}
"""
"""Answers are kept for a second only: tests look at addresses that have just changed."""

RBAC = "rbac.authorization.k8s.io"


def deployment(name: str, namespace: str, image: str, args: list[str], **pod: Any) -> Object:
    """Returns a Deployment of one pod with one container of one of our one-program images."""
    labels = {"app.kubernetes.io/name": name}
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "args": args,
        **pod.pop("container", {}),
    }
    template = {"serviceAccountName": name, "containers": [container], **pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template},
        },
    }


def account(name: str, namespace: str, role: str) -> dict[str, Object]:
    """Returns a service account bound to a cluster role, by API path."""
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    return {
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}": {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace},
        },
        f"/apis/{RBAC}/v1/clusterrolebindings/{name}": {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [subject],
        },
    }


def coredns() -> dict[str, Object]:
    """Returns CoreDNS's objects by API path."""
    namespace = "kube-system"
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]
    role = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "coredns"},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["endpoints", "services", "pods", "namespaces"],
                "verbs": ["list", "watch"],
            },
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }
    server = deployment(
        "coredns",
        namespace,
        PROGRAMS["coredns"],
        ["-conf", "/etc/coredns/Corefile"],
        dnsPolicy="Default",
        volumes=[{"name": "config", "configMap": {"name": "coredns"}}],
        container={
            "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        },
    )
    return {
        f"/apis/{RBAC}/v1/clusterroles/coredns": role,
        **account("coredns", namespace, "coredns"),
        f"/api/v1/namespaces/{namespace}/configmaps/coredns": {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "coredns", "namespace": namespace},
            "data": {"Corefile": COREFILE},
        },
        f"/api/v1/namespaces/{namespace}/services/kube-dns": {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": namespace},
            "spec": {
                "clusterIP": DNS_ADDRESS,
                "selector": {"app.kubernetes.io/name": "coredns"},
                "ports": ports,
            },
        },
        f"/apis/apps/v1/namespaces/{namespace}/deployments/coredns": server,
    }


def kuberay() -> dict[str, Object]:
    """Returns the KubeRay operator's objects by API path, its definitions apart."""
    namespace = "kuberay-system"
    server = deployment(
        "kuberay-operator",
        namespace,
        PROGRAMS["kuberay-operator"],
        ["-enable-leader-election=false"],
        container={"readinessProbe": {"httpGet": {"path": "/metrics", "port": 8080}, "periodSeconds": 1}},
    )
    return {
        f"/api/v1/namespaces/{namespace}": {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace},
        },
        **account("kuberay-operator", namespace, "cluster-admin"),
        f"/apis/apps/v1/namespaces/{namespace}/deployments/kuberay-operator": server,
    }


def definitions() -> dict[str, bytes]:
    """Returns KubeRay's definitions by API path, as its module has them; 1 MB each, so applied by the server."""
    found = {}
    for path in sorted(kuberay_definitions().glob("ray.io_*.yaml")):
        plural = path.stem.removeprefix("ray.io_")
        found[f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.ray.io"] = path.read_bytes()
    return found


def kuberay_definitions() -> Path:
    """Returns the folder of KubeRay's definitions, beside the programs of its pin."""
    return binaries.definitions()


def apply(api: Api) -> None:
    """Applies everything; the same again changes nothing."""
    for path, text in definitions().items():
        api.apply(path, text)
    for path, thing in (coredns() | kuberay()).items():
        api.apply(path, json.dumps(thing).encode())


def lacking(api: Api) -> list[str]:
    """Returns the Deployments that have no ready pod yet."""
    wanted = [path for path in coredns() | kuberay() if "/deployments/" in path]
    return [
        path.rpartition("/")[2]
        for path in wanted
        if not ((api.get(path) or {}).get("status") or {}).get("readyReplicas")
    ]
