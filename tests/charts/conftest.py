"""The charts on a real API server: helm, the servers of tests/apiserver, Prometheus. What lacks is said in a line."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "apiserver")]

from chart_files import places  # noqa: E402
from cluster import binaries, prometheus  # noqa: E402
from cluster.control_plane import TIDYING, ControlPlane  # noqa: E402
from helm_support import Helm  # noqa: E402

# The servers' fixtures are those of tests/apiserver; a conftest is no module that can be imported by its name.
_spec = importlib.util.spec_from_file_location(
    "apiserver_fixtures", ROOT / "tests" / "apiserver" / "conftest.py"
)
assert _spec is not None and _spec.loader is not None
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
control_plane, kubeconfig, api = _fixtures.control_plane, _fixtures.kubeconfig, _fixtures.api

CONTROLLERS = (
    *TIDYING, "deployment-controller", "replicaset-controller", "endpoints-controller", "endpointslice-controller",
    "clusterrole-aggregation-controller",
)  # fmt: skip
"""What turns a release into pods (that no node runs), Services into addresses, and roles into the cluster's own."""


@pytest.fixture(scope="session")
def controllers(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with the controllers that a release needs."""
    control_plane.start_controllers(CONTROLLERS)
    return control_plane


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster, with folders of its own."""
    return Helm(binaries.find("helm"), places.OPERATOR, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' tool, installed where that may be done unasked."""
    return prometheus.program("promtool")
