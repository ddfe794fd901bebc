"""A real API server for the session: etcd and kube-apiserver on free ports, gone with the session."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from cluster import binaries  # noqa: E402
from cluster.control_plane import ControlPlane, start_on_free_ports  # noqa: E402
from crash_lives import Stage, live_once  # noqa: E402
from faulty_proxy import Proxy  # noqa: E402
from kube_client import KubeClient, RefusedError, until  # noqa: E402
from life import Life  # noqa: E402
from operator_process import Keeper, Operator, write_kubeconfig  # noqa: E402
from simulated_router import SimulatedRouter  # noqa: E402
from simulator import Simulator  # noqa: E402
from stage import connect, define, flags_for, proxy_before  # noqa: E402


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
def api(control_plane: ControlPlane) -> Iterator[KubeClient]:
    """A client with an administrator's rights."""
    client = connect(control_plane)
    yield client
    client.close()


@pytest.fixture(scope="session")
def definition(api: KubeClient) -> dict[str, Any]:
    """The CustomResourceDefinition as the server took it, once it serves LeanModels."""
    return define(api, ROOT / "crds" / "leanmodel.yaml")


@pytest.fixture(scope="session")
def kuberay(api: KubeClient) -> dict[str, Any]:
    """KubeRay's definition of RayServices, of the version that the node runs."""
    return define(api, binaries.definitions() / "ray.io_rayservices.yaml")


@pytest.fixture
def namespace(api: KubeClient) -> Iterator[str]:
    """A namespace of the test's own."""
    made = api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}})
    name: str = made["metadata"]["name"]
    yield name
    api.delete("v1", "Namespace", name)


# ------------------------------------------------------------------ the operator and everybody else


@pytest.fixture(scope="session")
def cluster(
    control_plane: ControlPlane, definition: dict[str, Any], kuberay: dict[str, Any], api: KubeClient
) -> ControlPlane:
    """The control plane with both kinds of resources, and then the controllers that tidy up.

    In this order: the garbage collector looks for new kinds every 30 seconds only.
    """
    if "kube-controller-manager" not in control_plane.servers:
        control_plane.start_controllers()
    until(lambda: api.list("v1", "ServiceAccount", "default"), "the controllers run", 60)
    return control_plane


@pytest.fixture(scope="session")
def simulator(cluster: ControlPlane) -> Iterator[Simulator]:
    """Jobs, KubeRay and routers of all namespaces."""
    playing = Simulator(lambda: connect(cluster))
    yield playing
    playing.close()
    assert playing.defects == []


@pytest.fixture(scope="session")
def routers(simulator: Simulator) -> Iterator[SimulatedRouter]:
    """The addresses of the routers."""
    listening = SimulatedRouter(simulator)
    yield listening
    listening.close()


@pytest.fixture
def proxy(cluster: ControlPlane) -> Iterator[Proxy]:
    """A proxy of the test's own before the API server."""
    standing = proxy_before(cluster)
    yield standing
    standing.close()


@pytest.fixture
def home(api: KubeClient, cluster: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own in which pods may be made, and whose Lease may be taken."""
    made = api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "life-"}})
    name: str = made["metadata"]["name"]
    until(lambda: api.list("v1", "ServiceAccount", name), "the namespace has its service account")
    yield name
    with suppress(RefusedError):
        api.delete("v1", "Namespace", name)


@pytest.fixture
def life(api: KubeClient, simulator: Simulator, home: str) -> Life:
    """A LeanModel of the test's own, not made yet."""
    return Life(api, simulator, home)


@pytest.fixture
def operator(
    tmp_path: Path, proxy: Proxy, routers: SimulatedRouter, home: str
) -> Iterator[Callable[..., Operator]]:
    """Makes replicas of the operator that look after the test's namespace through its proxy."""
    made: list[Operator] = []

    def make(*flags: str, identity: str = "one", token: str = "") -> Operator:
        config = write_kubeconfig(tmp_path / f"kubeconfig-{identity}", proxy.url, token)
        made.append(Operator(tmp_path, config, *flags_for(home, routers), *flags, identity=identity))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def kept(operator: Callable[..., Operator]) -> Iterator[Callable[..., Keeper]]:
    """Makes an operator that is started again whenever it ends."""
    made: list[Keeper] = []

    def make(*flags: str) -> Keeper:
        made.append(Keeper(operator(*flags)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def stage(api: KubeClient, simulator: Simulator, routers: SimulatedRouter, cluster: ControlPlane) -> Stage:
    """All that whole lives are lived on, each with an operator of its own."""
    return Stage(
        api, simulator, lambda: proxy_before(cluster), lambda namespace: flags_for(namespace, routers)
    )


@pytest.fixture(scope="session")
def usual(stage: Stage) -> dict[str, Any]:
    """What is there of a LeanModel at the end of a life in which nothing goes wrong."""
    lived = live_once(stage)
    assert lived.wrong == []
    return lived.found
