"""What a node changes on the host: one link, two routes, four rules, some settings; and how it is undone.

All else, down to mounts and firewall rules of kube-proxy, lives in namespaces of the node's own, and ends with
its last process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

from .control_plane import SERVICE_RANGE
from .layout import POD_RANGE, Layout
from .words import run

REMEDY = "see above; `make cluster-down` undoes what was begun"

FORWARDING = "net/ipv4/ip_forward"
SETTINGS = (
    FORWARDING,
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""Settings of the whole machine that we (the first) or the kubelet (the others) write."""


def routes() -> list[str]:
    """Returns the networks that the host has routes to, without the default one."""
    found = json.loads(run(["ip", "-json", "route", "show"], remedy=REMEDY))
    return [route["dst"] for route in found if route["dst"] != "default"]


def settings() -> dict[str, str]:
    """Returns the machine's settings as they are now, those that this kernel has."""
    found = {}
    for name in SETTINGS:
        with contextlib.suppress(OSError):
            found[name] = (Path("/proc/sys") / name).read_text().strip()
    return found


def restore(kept: dict[str, str]) -> None:
    """Puts settings back that differ from what was kept."""
    now = settings()
    for name, value in kept.items():
        if now.get(name) != value:
            with contextlib.suppress(OSError):
                (Path("/proc/sys") / name).write_text(value)


def rules(layout: Layout) -> list[list[str]]:
    """Returns the iptables rules of the host: what comes from the node may leave, under the host's address."""
    mark = ["-m", "comment", "--comment", layout.name]
    return [
        ["-t", "nat", "POSTROUTING", "-s", layout.link, "!", "-o", layout.name, *mark, "-j", "MASQUERADE"],
        ["-t", "filter", "FORWARD", "-i", layout.name, *mark, "-j", "ACCEPT"],
        ["-t", "filter", "FORWARD", "-o", layout.name, *mark, "-j", "ACCEPT"],
    ]


def iptables(action: str, rule: list[str]) -> list[str]:
    """Returns the command that inserts (-I), checks (-C) or deletes (-D) a rule."""
    return ["iptables", "-w", *rule[:2], action, *rule[2:]]


def connect(layout: Layout, node: int) -> None:
    """Makes the link between the host and the process `node`'s network, with routes to pods and services."""
    inner = f"{layout.name}n"
    for words in (
        ["ip", "link", "add", layout.name, "type", "veth", "peer", "name", inner],
        ["ip", "link", "set", inner, "netns", str(node)],
        ["ip", "address", "add", f"{layout.host_address}/30", "dev", layout.name],
        ["ip", "link", "set", layout.name, "up"],
        ["ip", "route", "add", SERVICE_RANGE, "via", layout.node_address, "dev", layout.name],
        ["ip", "route", "add", POD_RANGE, "via", layout.node_address, "dev", layout.name],
    ):
        run(words, remedy=REMEDY)
    (Path("/proc/sys") / FORWARDING).write_text("1")
    for rule in rules(layout):
        run(iptables("-I", rule), remedy=REMEDY)


def disconnect(layout: Layout) -> None:
    """Removes the link, with it its routes, and the rules; does nothing where they are gone already."""
    quietly(["ip", "link", "delete", layout.name])
    for rule in rules(layout):
        while quietly(iptables("-D", rule)):
            pass


def quietly(words: list[str]) -> bool:
    """Runs a command whose failure means only that there was nothing to do; says whether it ended well."""
    return subprocess.run(words, check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


# --------------------------------------------------------------------------------------- cgroups


def hierarchies(mounts: str) -> list[Path]:
    """Returns where cgroups are mounted, out of the text of /proc/mounts.

    With version 1 each controller has a place of its own, and often there is one of version 2 beside them,
    without controllers, where runc makes cgroups too.
    """
    found = [line.split() for line in mounts.splitlines()]
    return [Path(words[1]) for words in found if words[2] in ("cgroup", "cgroup2")]


def refused(mounts: str) -> str:
    """Returns what a node needs and this machine does not give, as a container of few rights; empty when it does.

    Args:
        mounts: the text of /proc/mounts.
    """
    places = hierarchies(mounts)
    closed = [str(place) for place in places if not os.access(place, os.W_OK)]
    if closed or not places:
        return f"cgroups cannot be made here ({', '.join(closed) or 'none are mounted'})"
    words = ["unshare", "--mount", "--net", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/tmp"]
    if not quietly(words):
        return "namespaces and mounts of one's own are not allowed here"
    return ""


def make_cgroups(layout: Layout) -> None:
    """Makes the node's cgroup in every hierarchy, which the kubelet wants to find."""
    for mount in hierarchies(Path("/proc/mounts").read_text()):
        (mount / layout.name).mkdir(exist_ok=True)


def cgroup_processes(layout: Layout) -> set[int]:
    """Returns the processes in the node's cgroups, by their numbers on the host."""
    found = set()
    for mount in hierarchies(Path("/proc/mounts").read_text()):
        for listing in (mount / layout.name).rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found |= {int(line) for line in listing.read_text().split()}
    return found


def remove_cgroups(layout: Layout) -> None:
    """Removes the node's cgroups, the innermost first; one that still has a process stays."""
    for mount in hierarchies(Path("/proc/mounts").read_text()):
        top = mount / layout.name
        for folder in sorted(top.rglob("*"), key=lambda path: len(path.parts), reverse=True):
            if folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()
