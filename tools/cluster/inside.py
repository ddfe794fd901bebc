"""The node from within: process 1 of namespaces of its own, which starts everything and outlives nothing.

When it ends, whatever the reason, the kernel ends all processes of the node, pods included, and with the last
of them go its mounts, bridges and firewall rules.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from . import binaries, kubeconfig, layout
from .control_plane import ControlPlane, Place
from .images import import_archive
from .layout import NODE, POD_RANGE, Layout
from .machine import SYSTEM_PATH
from .servers import Server
from .words import ClusterError, run, say

REMEDY = "see the logs folder of the node"

HIDDEN = {"/var/lib/kubelet": "var-kubelet", "/var/lib/cni": "var-cni", "/var/log": "var-log"}
"""Folders whose paths are built into kubelet and CNI, to those of the node's folder that lie over them."""


def main(folder: Path) -> None:
    """Brings the node up and stays until a server ends or SIGTERM comes; `failed` then says what happened."""
    found = layout.read(folder)
    if found is None:
        raise SystemExit(f"no layout in {folder}")
    signal.signal(signal.SIGTERM, leave)
    if sys.stdin.readline() != "go\n":  # the host says when its end of the link is made, or is gone
        raise SystemExit("the host did not make the link")
    os.environ["PATH"] = SYSTEM_PATH
    try:
        cover(found)
        network(found)
        servers = start(found)
        (folder / "started").touch()
        watch(servers)
    except ClusterError as error:
        (folder / "failed").write_text(str(error))
        raise SystemExit(1) from None


def leave(number: int, frame: FrameType | None) -> None:
    """Ends the node: what process 1 leaves behind, the kernel kills."""
    raise SystemExit(0)


def cover(found: Layout) -> None:
    """Lays folders of the node over the host's that its programs write to; seen only in this namespace."""
    folder = found.folder
    # Volumes that the kubelet mounts must be seen by containerd's mounts of them.
    run(["mount", "--make-rshared", "/"], remedy=REMEDY)
    for path, own in HIDDEN.items():
        (folder / own).mkdir(exist_ok=True)
        run(["mount", "--bind", folder / own, path], remedy=REMEDY)
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "node", "/run"], remedy=REMEDY)
    hosts = Path("/etc/hosts").read_text() + f"\n{found.node_address} {NODE}\n"
    (folder / "hosts").write_text(hosts)
    run(["mount", "--bind", folder / "hosts", "/etc/hosts"], remedy=REMEDY)


def network(found: Layout) -> None:
    """Brings up loopback and this end of the link to the host."""
    inner = f"{found.name}n"
    for words in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{found.node_address}/30", "dev", inner],
        ["ip", "link", "set", inner, "up"],
        ["ip", "route", "add", "default", "via", found.host_address],
    ):
        run(words, remedy=REMEDY)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def start(found: Layout) -> list[Server]:
    """Starts the control plane and the node's servers, each once what it needs is there."""
    folder = found.folder
    containerd: list[str | Path] = ["containerd", "--config", folder / "containerd.toml"]
    runtime = server(found, "containerd", containerd)
    plane = ControlPlane(Place(folder, found.node_address), guarded=False)
    certificates = plane.authority
    certificates.server("kubelet", [NODE], [found.node_address])
    users = {
        "kubelet": certificates.client("node", f"system:node:{NODE}", ["system:nodes"]),
        "kube-proxy": certificates.client("kube-proxy", "system:kube-proxy"),
    }
    for name, pair in users.items():
        kubeconfig.write(folder / f"{name}.kubeconfig", plane.place.url, certificates.pair.certificate, pair)
    plane.start()
    plane.start_controllers(["*"])
    plane.start_scheduler()
    runtime.wait_until(lambda: speaks(found), 60)
    for archive in sorted((folder / "archives").glob("*.tar")):
        import_archive(found, archive)
    kubelet = server(found, "kubelet", kubelet_command(found))
    proxy = server(found, "kube-proxy", proxy_command(found))
    volumes = server(found, "storage", [sys.executable, "-m", "cluster.storage", folder])
    return [*plane.servers.values(), runtime, kubelet, proxy, volumes]


def server(found: Layout, name: str, command: list[str | Path]) -> Server:
    """Starts one server of the node."""
    started = Server(name, command, found.folder / "logs" / f"{name}.log", guarded=False)
    started.start()
    return started


def speaks(found: Layout) -> bool:
    """Says whether containerd answers."""
    words = ["ctr", "--address", str(found.containerd_socket), "version"]
    return subprocess.run(words, check=False, capture_output=True, timeout=20).returncode == 0


def kubelet_command(found: Layout) -> list[str | Path]:
    """Returns the kubelet's command; nearly all it is told stands in its configuration."""
    return [
        binaries.find("kubelet"),
        f"--config={found.folder / 'kubelet.json'}",
        f"--kubeconfig={found.folder / 'kubelet.kubeconfig'}",
        f"--root-dir={found.folder / 'kubelet'}",
        f"--cert-dir={found.folder / 'certificates'}",
        f"--hostname-override={NODE}",
        f"--node-ip={found.node_address}",
    ]


def proxy_command(found: Layout) -> list[str | Path]:
    """Returns kube-proxy's command.

    Kernels without br_netfilter let answers between pods of one bridge pass by the rules that would translate
    them back, unless the requests seem to come from the node: hence --masquerade-all.
    """
    return [
        binaries.find("kube-proxy"),
        f"--kubeconfig={found.folder / 'kube-proxy.kubeconfig'}",
        f"--hostname-override={NODE}",
        f"--cluster-cidr={POD_RANGE}",
        "--proxy-mode=iptables",
        "--masquerade-all",
        # Connection tracking's size is the machine's, not the node's.
        "--conntrack-max-per-core=0",
    ]


def watch(servers: list[Server]) -> None:
    """Reaps what is orphaned, and raises ClusterError when one of the servers ends."""
    named = {server.process.pid: server for server in servers if server.process is not None}
    while True:
        pid, status = os.wait()
        if pid in named:
            raise named[pid].failure(f"ended with {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except ClusterError as error:
        say(str(error))
        raise SystemExit(1) from None
