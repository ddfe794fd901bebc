"""Runs the tests of tier 3: on a node of our own, with our images, or on a cluster that is named.

`make e2e` runs all of them, `make e2e-smoke` those that go the whole way once. The latter is for machines of which
nothing is known: where a node cannot be had, it says why in one line and ends well.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cluster import base, binaries, host, layout, machine, node, own
from cluster.words import ClusterError, DiskError, say

ROOT = Path(__file__).resolve().parents[1]
SMOKE = "tests/node/test_smoke.py"


def main(words: list[str]) -> int:
    """Runs the tests; returns the exit code."""
    parser = argparse.ArgumentParser(prog="e2e", description=__doc__)
    parser.add_argument(
        "--kubeconfig", default="", help="of a cluster with KubeRay; a node is started if not given"
    )
    parser.add_argument(
        "--images", default="", help="operator, compressor and server that the cluster can pull"
    )
    parser.add_argument("--base", default="", help="base image of our images")
    parser.add_argument(
        "--smoke", action="store_true", help="the whole way once; skipped where no node can be had"
    )
    parser.add_argument("pytest", nargs="*", help="arguments of pytest")
    chosen = parser.parse_args(words)
    if chosen.kubeconfig:
        if len(chosen.images.split()) != len(own.NAMES):
            say(
                f'name the images that the cluster can pull: IMAGES="{" ".join(n.upper() for n in own.NAMES)}"'
            )
            return 2
        try:
            return tests(chosen.kubeconfig, chosen.images, "IfNotPresent", chosen)
        except ClusterError as error:  # helm could not be built
            say(str(error))
            return 1
    if chosen.smoke and (why := lacking()):
        say(f"tier 3 is skipped: {why}")
        return 0
    there = layout.read(layout.node_folder()) is not None
    try:
        images = own.build(base_image=chosen.base)
        # What runs with every change must not fill the disk with what earlier ones built.
        if chosen.smoke and not chosen.base:
            own.prune()
        found = node.up()
        node.load_own(images.values())
        return tests(str(found.kubeconfig), " ".join(images.values()), "Never", chosen)
    except DiskError as error:
        say(f"tier 3 is skipped: {error}" if chosen.smoke else str(error))
        return 0 if chosen.smoke else 1
    except ClusterError as error:
        say(str(error))
        return 1
    finally:
        if chosen.smoke and not there and layout.read(layout.node_folder()) is not None:
            node.down()


def lacking() -> str:
    """Returns why no node can be had on this machine; empty when one can."""
    if os.geteuid() != 0:
        return "a node needs root"
    programs = machine.NODE_PACKAGES | base.BUILD_PACKAGES
    if (packages := machine.missing(programs)) and not machine.has("apt-get"):
        return f"{', '.join(packages)} are not here, and there is no apt-get"
    if why := host.refused(Path("/proc/mounts").read_text()):
        return why
    try:
        for name in binaries.BINARIES.keys() - {"prometheus-operator"}:
            if not binaries.place(name).is_file():
                binaries.find_go(name)
    except ClusterError as error:
        return error.found
    return ""


def tests(kubeconfig: str, images: str, policy: str, chosen: argparse.Namespace) -> int:
    """Runs pytest on a cluster; returns its exit code."""
    variables = {
        "LEANMODEL_E2E_KUBECONFIG": str(Path(kubeconfig).absolute()),
        "LEANMODEL_E2E_IMAGES": images,
        "LEANMODEL_E2E_PULL_POLICY": policy,
    }
    if shutil.which("helm") is None:
        variables["PATH"] = f"{binaries.build(['helm'])['helm'].parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "pytest", SMOKE if chosen.smoke else "tests/node", *chosen.pytest]
    return subprocess.run(command, check=False, cwd=ROOT, env=os.environ | variables).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
