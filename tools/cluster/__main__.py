"""The commands: `python -m cluster build|prune|up|down|load|images`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path

from . import binaries, node, own
from .words import ClusterError, say


def main(words: list[str]) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="cluster", description="A real Kubernetes for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build", help="build programs into the cache, those of the servers if none is named"
    )
    build.add_argument("names", nargs="*", metavar="NAME")
    commands.add_parser("prune", help="remove programs of older pins from the cache")
    commands.add_parser("up", help="start a node, if none runs, and print its kubeconfig's path")
    commands.add_parser("down", help="end the node and undo everything on the host")
    made = commands.add_parser("images", help="build our images, bring them into the node, print their names")
    made.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(own.NAMES)}; all if none")
    made.add_argument(
        "--base", default="", metavar="IMAGE", help="base image; default: one of Debian's packages"
    )
    load = commands.add_parser(
        "load", help="bring images into the node, from archives as `docker save` makes"
    )
    load.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    chosen = parser.parse_args(words)
    try:
        if chosen.command == "build":
            for path in binaries.build(
                names(chosen.names, binaries.BINARIES, "program") or binaries.SERVERS
            ).values():
                print(path)
        elif chosen.command == "prune":
            for gone in (*binaries.prune(), *own.prune()):
                say(f"removed {gone}")
        elif chosen.command == "up":
            print(node.up().kubeconfig)
        elif chosen.command == "down":
            node.down()
        elif chosen.command == "load":
            node.load(chosen.archives)
        elif chosen.command == "images":
            built = own.build(names(chosen.names, own.NAMES, "image") or own.NAMES, chosen.base)
            node.load_own(built.values())
            print("\n".join(built.values()))
    except ClusterError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    return 0


def names(given: list[str], ours: Collection[str], what: str) -> list[str]:
    """Returns names as given; raises ClusterError for one that is not among ours."""
    for name in given:
        if name not in ours:
            raise ClusterError(f"there is no {what} {name}", f"write one of {', '.join(ours)}")
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
