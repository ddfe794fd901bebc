"""The commands: `python -m cluster build|prune|up|down|load`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import binaries, node
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
    load = commands.add_parser(
        "load", help="bring images into the node, from archives as `docker save` makes"
    )
    load.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    chosen = parser.parse_args(words)
    try:
        if chosen.command == "build":
            for path in binaries.build(names(chosen.names) or binaries.SERVERS).values():
                print(path)
        elif chosen.command == "prune":
            for path in binaries.prune():
                say(f"removed {path}")
        elif chosen.command == "up":
            print(node.up().kubeconfig)
        elif chosen.command == "down":
            node.down()
        elif chosen.command == "load":
            node.load(chosen.archives)
    except ClusterError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    return 0


def names(given: list[str]) -> list[str]:
    """Returns the names of programs as given; raises ClusterError for one that is not ours."""
    for name in given:
        if name not in binaries.BINARIES:
            raise ClusterError(f"there is no program {name}", f"write one of {', '.join(binaries.BINARIES)}")
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
