"""etcd, the API server and the controllers: their commands, and starting them in the right order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import binaries, kubeconfig
from .api import Api
from .certificates import Authority, Pair
from .servers import Server, free_ports
from .words import ClusterError

SERVICE_RANGE = "10.96.0.0/16"
READY_SECONDS = 180.0
"""A cold disk and a busy machine included; seen: 4 s alone, and more than 60 s beside much else."""

TIDYING = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    # Every claim is born with a finalizer that only this one takes off again.
    "persistentvolumeclaim-protection-controller",
    # A pod's deletion is two writes. One whose API server died between them waits for a kubelet; there is none here.
    "pod-garbage-collector-controller",
)
"""Controllers that only make deletions and new namespaces behave; none of them runs a Job or a Deployment."""

HOSTS = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True)
class Place:
    """Where one control plane lives: its folder, the address of its API server, and its ports."""

    folder: Path
    address: str = "127.0.0.1"
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    api_port: int = 6443

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://{self.address}:{self.api_port}"


def etcd_command(place: Place) -> list[str]:
    """Returns etcd's command: one member on loopback, which loses data with the power and nothing else."""
    client = f"http://127.0.0.1:{place.etcd_port}"
    peer = f"http://127.0.0.1:{place.etcd_peer_port}"
    return [
        str(binaries.find("etcd")),
        *("--name", "test", "--data-dir", str(place.folder / "etcd")),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"test={peer}", "--unsafe-no-fsync", "--log-level", "warn"),
        # Tests of the API server's own limits write megabytes per object.
        *("--max-request-bytes", str(8 * 2**20), "--quota-backend-bytes", str(2 * 2**30)),
    ]


def api_server_command(place: Place, authority: Authority, serving: Pair, accounts: Path) -> list[str]:
    """Returns the API server's command; its admission and authorisation are those of a real cluster."""
    command = [
        str(binaries.find("kube-apiserver")),
        f"--etcd-servers=http://127.0.0.1:{place.etcd_port}",
        f"--bind-address={place.address}",
        f"--advertise-address={place.address}",
        f"--secure-port={place.api_port}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={authority.pair.certificate}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--kubelet-client-certificate={authority.folder / 'admin.crt'}",
        f"--kubelet-client-key={authority.folder / 'admin.key'}",
        f"--kubelet-certificate-authority={authority.pair.certificate}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={accounts}",
        f"--service-account-signing-key-file={accounts}",
    ]
    if place.address.startswith("127."):
        # No pod will look for the service called kubernetes, and its endpoints may not be on loopback.
        command.append("--endpoint-reconciler-type=none")
    return command


def controller_manager_command(
    config: Path, authority: Authority, accounts: Path, controllers: Iterable[str]
) -> list[str]:
    """Returns the controller manager's command, with the named controllers only (`*`: all)."""
    return [
        str(binaries.find("kube-controller-manager")),
        f"--kubeconfig={config}",
        f"--controllers={','.join(controllers)}",
        f"--service-account-private-key-file={accounts}",
        f"--root-ca-file={authority.pair.certificate}",
        "--leader-elect=false",
        "--secure-port=0",
        # A namespace of a test should be gone in a second, not in five.
        "--concurrent-namespace-syncs=20",
    ]


def scheduler_command(config: Path) -> list[str]:
    """Returns the scheduler's command."""
    return [
        str(binaries.find("kube-scheduler")),
        f"--kubeconfig={config}",
        "--leader-elect=false",
        "--secure-port=0",
    ]


class ControlPlane:
    """A control plane that ends with this process: etcd and the API server, and controllers when asked."""

    def __init__(self, place: Place, *, guarded: bool = True, addresses: Iterable[str] = ()) -> None:
        """Makes certificates and a kubeconfig in the place's folder; starts nothing yet."""
        self.place = place
        self.authority = Authority(place.folder / "certificates")
        self.serving = self.authority.server(
            "kube-apiserver", HOSTS, dict.fromkeys(["127.0.0.1", "10.96.0.1", place.address, *addresses])
        )
        self.admin = self.authority.client("admin", "admin", ["system:masters"])
        self.api = Api(place.url, self.authority.pair.certificate, self.admin)
        self.accounts = self.authority.signing_key("service-accounts")
        self.kubeconfig = kubeconfig.write(
            place.folder / "kubeconfig", place.url, self.authority.pair.certificate, self.admin
        )
        self.guarded = guarded
        self.servers: dict[str, Server] = {}

    def start(self) -> None:
        """Starts etcd and the API server, and returns when it answers for the default namespace."""
        self._start("etcd", etcd_command(self.place))
        self.start_api_server()

    def start_api_server(self) -> None:
        """Starts the API server, also again after it was stopped or killed, and waits until it is ready."""
        command = api_server_command(self.place, self.authority, self.serving, self.accounts)
        self._start("kube-apiserver", command).wait_until(self.is_ready, READY_SECONDS)

    def start_controllers(self, controllers: Iterable[str] = TIDYING) -> None:
        """Starts the controller manager with the named controllers; what they do is seen in the API."""
        command = controller_manager_command(self.kubeconfig, self.authority, self.accounts, controllers)
        self._start("kube-controller-manager", command)

    def start_scheduler(self) -> None:
        """Starts the scheduler."""
        self._start("kube-scheduler", scheduler_command(self.kubeconfig))

    def stop(self) -> None:
        """Ends all servers, the last started first, so that none waits for one that is gone."""
        for server in reversed(self.servers.values()):
            server.stop()

    def is_ready(self) -> bool:
        """Says whether the API server is ready and has made the default namespace, which it does late."""
        return self.api.answers("/readyz") and self.api.answers("/api/v1/namespaces/default")

    def _start(self, name: str, command: list[str]) -> Server:
        log = self.place.folder / "logs" / f"{name}.log"
        server = self.servers[name] = Server(name, command, log, guarded=self.guarded)
        server.start()
        return server


def start_on_free_ports(folder: Path) -> ControlPlane:
    """Starts etcd and the API server on loopback, for as long as this process lives.

    Another process may take a port between choosing and using it: then other ones are tried, twice.
    """
    for attempt in range(3):
        etcd_port, peer_port, api_port = free_ports(3)
        place = Place(folder / str(attempt), "127.0.0.1", etcd_port, peer_port, api_port)
        place.folder.mkdir(parents=True)
        plane = ControlPlane(place)
        try:
            plane.start()
        except ClusterError as error:
            plane.stop()
            if attempt == 2 or "address already in use" not in error.found:
                raise
        else:
            return plane
    raise AssertionError("unreachable")
