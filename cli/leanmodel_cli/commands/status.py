"""leanmodel status: where a run stands."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from leanmodel_api.errors import InputError, Issue

from ..runs import only_run, read_json
from ..table import status_lines

HELP = "show where a LeanModel stands"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="the LeanModel; default: the only one")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace (default: default)")
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "json"),
        default="table",
        help="json prints the resource with its status, as a cluster would",
    )


def run(arguments: Namespace) -> int:
    """Print the status; return 0 when there is one."""
    run = only_run(arguments.name, arguments.namespace)
    resource: dict[str, Any] | None = read_json(run.status)
    if resource is None:
        raise InputError(Issue(run.root.name, "has no status yet", "try again in a moment"))
    if run.supervisor() is None and resource["status"]["phase"] not in ("Stopped", "Failed"):
        # The supervisor was killed: what it wrote last is history, and must not be shown as true now.
        resource["status"]["phase"] = "Stopped"
        for condition in resource["status"]["conditions"]:
            if condition["type"] in ("Serving", "Ready"):
                condition.update(
                    status="False",
                    reason="Stopped",
                    message="the run has ended; start it again with `leanmodel up`",
                )
    if arguments.output == "json":
        print(json.dumps(resource, indent=2))
    else:
        print("\n".join(status_lines(resource)))
    return 0
