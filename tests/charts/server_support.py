"""What tests of the charts ask of a real API server: definitions of others, rights, tokens, addresses."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path
from typing import Any

import yaml
from cluster import binaries
from kube_client import KubeClient, RefusedError, until

Object = dict[str, Any]
CRD = "apiextensions.k8s.io/v1"


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: a lone equals sign, which older YAML gave a meaning, is a string."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def exists(api: KubeClient, api_version: str, kind: str, name: str, namespace: str | None = None) -> bool:
    """Whether there is such an object."""
    try:
        api.get(api_version, kind, name, namespace)
    except RefusedError as error:
        assert error.code == 404, error
        return False
    return True


def serve_definitions(api: KubeClient, module: str) -> None:
    """Apply the definitions that come with a pinned module, and wait until all their kinds are served."""
    files = sorted(binaries.definitions(module).glob("*.yaml"))
    wanted = [yaml.load(path.read_text(), Loader=_Loader) for path in files]
    assert wanted, f"{binaries.definitions(module)} is empty"
    for definition in wanted:
        # Their own field manager's checks are not ours: no strict validation of what we did not write.
        api.apply(definition, fieldValidation="Ignore")

    def served() -> bool:
        for definition in wanted:
            spec = definition["spec"]
            version = next(v["name"] for v in spec["versions"] if v["served"])
            # Of a group that it has not heard of yet, the server says so in plain text.
            answer = api.http.get(f"/apis/{spec['group']}/{version}")
            if answer.is_error or spec["names"]["plural"] not in {
                r["name"] for r in answer.json()["resources"]
            }:
                return False
        return True

    until(served, f"the definitions of {module} are served", 30.0)


def make_namespace(api: KubeClient, name: str, **labels: str) -> str:
    """Make a namespace in which only pods may run that keep Kubernetes' strictest standard."""
    marks = {"pod-security.kubernetes.io/enforce": "restricted"} | labels
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marks}})
    return name


def account(namespace: str, name: str) -> str:
    """The name under which a service account asks."""
    return f"system:serviceaccount:{namespace}:{name}"


def may(api: KubeClient, user: str, verb: str, group: str, resource: str, **more: str) -> bool:
    """Whether somebody may do something, in the API server's own words; `namespace` and `name` may say where."""
    plural, _, sub = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": plural, "subresource": sub, **more}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": ["system:authenticated"], "resourceAttributes": attributes},
    }
    return bool(api.create(review)["status"]["allowed"])


def token_kubeconfig(api: KubeClient, url: str, authority: Path, who: tuple[str, str], path: Path) -> Path:
    """Write a kubeconfig with which a program has exactly a service account's rights."""
    asked = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    }
    answer = api.ask("POST", f"/api/v1/namespaces/{who[0]}/serviceaccounts/{who[1]}/token", asked)
    trusted = base64.b64encode(authority.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority-data": trusted}}],
        "users": [{"name": "u", "user": {"token": answer["status"]["token"]}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return path


def own_address() -> str:
    """An address of this machine that is not of loopback: Kubernetes allows no loopback behind a Service."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # a datagram socket sends nothing here, it only picks a way out
        found = str(probe.getsockname()[0])
    assert not found.startswith("127."), "this machine has no address but loopback's"
    return found
