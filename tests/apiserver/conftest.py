"""A real API server for the session: etcd and kube-apiserver on free ports, gone with the session."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from cluster.control_plane import ControlPlane, start_on_free_ports  # noqa: E402
from kube_client import KubeClient, RefusedError, until  # noqa: E402


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and the API server, without controllers; a killed session takes them along."""
    plane = start_on_free_ports(tmp_path_factory.mktemp("control-plane"))
    yield plane
    plane.stop()
    shutil.rmtree(plane.place.folder)


@pytest.fixture(scope="session")
def kubeconfig(control_plane: ControlPlane) -> Path:
    """The path of an administrator's kubeconfig."""
    return control_plane.kubeconfig


@pytest.fixture(scope="session")
def controllers(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with the controllers that tidy up: owned objects, namespaces, service accounts."""
    control_plane.start_controllers()
    return control_plane


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[KubeClient]:
    """A client with an administrator's rights."""
    admin = control_plane.admin
    client = KubeClient(
        control_plane.place.url, control_plane.authority.pair.certificate, admin.certificate, admin.key
    )
    yield client
    client.close()


@pytest.fixture(scope="session")
def definition(api: KubeClient) -> dict[str, Any]:
    """The CustomResourceDefinition as the server took it, once it serves LeanModels."""
    api.apply(yaml.safe_load((ROOT / "crds" / "leanmodel.yaml").read_text()))

    def established() -> Any:
        found = api.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "leanmodels.leanmodel.io")
        true = {c["type"] for c in found["status"].get("conditions") or [] if c["status"] == "True"}
        return found if {"Established", "NamesAccepted"} <= true else None

    def served() -> bool:
        try:
            return bool(api.ask("GET", "/apis/leanmodel.io/v1alpha1"))
        except RefusedError:
            return False

    found: dict[str, Any] = until(established, "the definition is established")
    until(served, "LeanModels are in the discovery")
    return found


@pytest.fixture
def namespace(api: KubeClient) -> Iterator[str]:
    """A namespace of the test's own."""
    made = api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}})
    name: str = made["metadata"]["name"]
    yield name
    api.delete("v1", "Namespace", name)
