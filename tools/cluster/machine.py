"""What a node asks of the machine: root, programs from Debian's packages, disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from .words import ClusterError, DiskError, say

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where Debian's packages put their programs, also for a root whose PATH lacks the sbin folders."""

NODE_PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "unshare": "util-linux",
    "mount": "mount",
    "openssl": "openssl",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
"""Program to the Debian package that has it."""

NODE_BYTES = 12 * 2**30
"""Free bytes asked before a node starts: three images of 1-6 GB, unpacked, are what it is for."""


def has(program: str) -> bool:
    """Says whether a program is here, by name or by its full path."""
    return shutil.which(program, path=SYSTEM_PATH) is not None


def missing(programs: dict[str, str], is_here: Callable[[str], bool] = has) -> list[str]:
    """Returns the packages that programs are missing from, each once and in order."""
    return sorted({package for program, package in programs.items() if not is_here(program)})


def need_packages(programs: dict[str, str]) -> None:
    """Installs missing packages where that may be done unasked; raises ClusterError naming all that lack."""
    lacking = missing(programs)
    if lacking and os.geteuid() == 0 and has("apt-get"):
        say(f"installing with apt-get: {' '.join(lacking)}")
        apt(["update", "-qq"])
        apt(["install", "-y", "-qq", "--no-install-recommends", *lacking])
        lacking = missing(programs)
    if lacking:
        raise ClusterError(
            f"this machine lacks {', '.join(lacking)} (names of Debian's packages)",
            f"install them: apt-get install {' '.join(lacking)}",
        )


def apt(words: Iterable[str]) -> None:
    """Runs apt-get without a question; whoever calls looks at what it brought."""
    subprocess.run(
        ["apt-get", *words],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
    )


def need_root() -> None:
    """Raises ClusterError without root: namespaces, cgroups and mounts want it."""
    if os.geteuid() != 0:
        raise ClusterError(
            "a node needs root (namespaces, cgroups, mounts)",
            "run it as root, or give the tests a cluster of yours: make e2e KUBECONFIG=...",
        )


def need_disk(folder: Path, wanted: int = NODE_BYTES, what: str = "a node") -> None:
    """Raises DiskError when the disk that `folder` lies on, or will, has too little room.

    Args:
        folder: where it will be written.
        wanted: bytes.
        what: the words for what needs them.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < wanted:
        raise DiskError(
            f"{free / 2**30:.1f} GiB are free for {folder}, {what} wants {wanted / 2**30:.0f} GiB",
            "free some (`make cluster-prune` removes old programs and images), or set LEANMODEL_CLUSTER (the node) "
            "or LEANMODEL_CACHE (programs and images) to a folder on a larger disk",
        )
