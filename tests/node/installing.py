"""Puts the operator into a cluster, and takes it out again: one function each, whatever the way of installing."""

from __future__ import annotations

from collections.abc import Mapping

import yaml
from node_support import ROOT, Kubectl, Object

from leanmodel_operator.cluster import rbac

NAMESPACE = "leanmodel-system"
NAME = "leanmodel-operator"
LABELS = {"app.kubernetes.io/name": NAME}
GROUP = "rbac.authorization.k8s.io"


def install(kubectl: Kubectl, images: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Install definitions and operator, and wait until it leads.

    Args:
        images: references of operator, compressor and server.
        settings: the operator's further settings, by the names of its environment variables without their prefix.
    """
    kubectl.apply(yaml.safe_load((ROOT / "crds" / "leanmodel.yaml").read_text()), server_side=True)
    kubectl.run("wait", "--for=condition=Established", "crd/leanmodels.leanmodel.io", "--timeout=60s")
    kubectl.apply(*manifests(images, settings))
    kubectl.run("rollout", "status", f"deployment/{NAME}", "-n", NAMESPACE, "--timeout=180s", timeout=200)


def remove(kubectl: Kubectl, images: Mapping[str, str]) -> None:
    """Take out the operator and the definitions, and with these all LeanModels."""
    for thing in reversed(manifests(images, {})):
        meta = thing["metadata"]
        words = ("delete", thing["kind"], meta["name"], "--ignore-not-found", "--timeout=120s")
        kubectl.run(*words, *(["-n", meta["namespace"]] if "namespace" in meta else []), timeout=150)
    kubectl.run(
        "delete", "crd", "leanmodels.leanmodel.io", "--ignore-not-found", "--timeout=120s", timeout=150
    )


def manifests(images: Mapping[str, str], settings: Mapping[str, str]) -> list[Object]:
    """Return the operator's objects, with the rights that it uses and no more."""
    values = {
        "COMPRESSOR_IMAGE": images["compressor"],
        "PROVER_IMAGE": images["server"],
        "SERVER_IMAGE": images["server"],
        "LEASE_NAMESPACE": NAMESPACE,
        **settings,
    }
    container = {
        "name": "operator",
        "image": images["operator"],
        "imagePullPolicy": settings.get("IMAGE_PULL_POLICY", "IfNotPresent"),
        "env": [{"name": f"LEANMODEL_{name}", "value": value} for name, value in values.items()],
        "ports": [{"name": "http", "containerPort": 8081}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "serviceAccountName": NAME,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": NAMESPACE}},
        _role("ClusterRole", {}, [*rbac.namespace_rules(), *rbac.cluster_rules()]),
        _binding("ClusterRole", {}),
        _role("Role", {"namespace": NAMESPACE}, rbac.lease_rules(NAME)),
        _binding("Role", {"namespace": NAMESPACE}),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": LABELS},
                "template": {"metadata": {"labels": LABELS}, "spec": pod},
            },
        },
    ]


def _role(kind: str, where: Mapping[str, str], rules: list[Object]) -> Object:
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": NAME, **where}, "rules": rules}


def _binding(kind: str, where: Mapping[str, str]) -> Object:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": NAME, **where},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
    }
