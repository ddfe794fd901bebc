"""Where one node lives: its folder, its network, its names; and the configuration files that follow."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .control_plane import SERVICE_RANGE
from .words import ClusterError

POD_RANGE = "10.244.0.0/24"
DNS_ADDRESS = "10.96.0.10"
NODE = "leanmodel"
LINKS = tuple(f"172.29.{third}.0/30" for third in range(16, 32))
"""Networks of two addresses between host and node; the first that meets no route of the host is taken."""

PAUSE_IMAGE = "leanmodel.test/pause:1"


@dataclass(frozen=True)
class Layout:
    """One node: its folder, and the network between it and the host."""

    folder: Path
    link: str

    @property
    def name(self) -> str:
        """A short name for interfaces, cgroups and rules, which follows from the folder."""
        return "lm" + hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]

    @property
    def host_address(self) -> str:
        """The host's end of the link."""
        return str(ipaddress.ip_network(self.link)[1])

    @property
    def node_address(self) -> str:
        """The node's end of the link, where its API server listens."""
        return str(ipaddress.ip_network(self.link)[2])

    @property
    def containerd_socket(self) -> Path:
        """containerd's socket; its path must stay under 108 bytes."""
        return self.folder / "containerd.sock"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    def write(self) -> None:
        """Keeps the layout in its folder, for the node itself and for later commands."""
        text = json.dumps(asdict(self) | {"folder": str(self.folder)})
        (self.folder / "layout.json").write_text(text)


def node_folder(variables: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder of the node: $LEANMODEL_CLUSTER, or one that every root has."""
    return Path(variables.get("LEANMODEL_CLUSTER") or "/var/lib/leanmodel-cluster").absolute()


def read(folder: Path) -> Layout | None:
    """Returns the layout that was kept in a folder, or None."""
    try:
        kept = json.loads((folder / "layout.json").read_text())
    except OSError:
        return None
    return Layout(Path(kept["folder"]), kept["link"])


def choose(folder: Path, routes: Iterable[str]) -> Layout:
    """Returns a layout whose networks meet none of the host's routes, given as networks (`default` left out).

    Raises ClusterError when the ranges of pods or services are taken, by another cluster for instance.
    """
    taken = [ipaddress.ip_network(route, strict=False) for route in routes]
    for name, fixed in (("pods", POD_RANGE), ("services", SERVICE_RANGE)):
        if meets(fixed, taken):
            raise ClusterError(
                f"the host has a route that meets {fixed}, which the node's {name} would have",
                "end the other cluster (`ip route` shows the route), or use it: make e2e KUBECONFIG=...",
            )
    for link in LINKS:
        if not meets(link, taken):
            return Layout(folder, link)
    raise ClusterError(f"all of {LINKS[0]} to {LINKS[-1]} meet routes of the host", "remove one (`ip route`)")


def meets(network: str, taken: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Says whether a network shares an address with one of the others."""
    ours = ipaddress.ip_network(network)
    return any(other.version == ours.version and ours.overlaps(other) for other in taken)


def containerd_config(layout: Layout) -> str:
    """Returns containerd's configuration: everything in the node's folder, and no more rights than root has.

    Where root lacks CAP_SYS_RESOURCE, runc may not lower the score by which the kernel picks what to kill
    first, and says only "can't get final child's PID from pipe"; hence restrict_oom_score_adj.
    """
    folder = layout.folder
    return f"""version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "{layout.containerd_socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
"""


def cni_config(layout: Layout) -> str:
    """Returns the network of pods: a bridge with addresses from one range, left by masquerading."""
    plugins = [
        {
            "type": "bridge",
            "bridge": "pods",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": f"{layout.folder}/addresses",
                "ranges": [[{"subnet": POD_RANGE}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}, indent=1)


def kubelet_config(layout: Layout) -> str:
    """Returns the kubelet's configuration, as JSON (which is YAML)."""
    certificates = layout.folder / "certificates"
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.node_address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(certificates / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificates / "kubelet.crt"),
        "tlsPrivateKeyFile": str(certificates / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.name}",
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(layout.folder / "resolv.conf"),
        "podLogsDir": str(layout.folder / "pod-logs"),
        "volumePluginDir": str(layout.folder / "volume-plugins"),
        "failSwapOn": False,
        # Tests share the disk with all else: nothing is evicted or collected before it is nearly full.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        # A test that ends a pod should not wait long for it to be noticed.
        "nodeStatusUpdateFrequency": "5s",
        # Nor for a mounted ConfigMap to follow its object; elsewhere that takes up to a minute and a half.
        "syncFrequency": "10s",
    }
    return json.dumps(config, indent=1)
