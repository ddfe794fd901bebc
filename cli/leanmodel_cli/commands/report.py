"""leanmodel report: the proof, as a table, as JSON, or where its page is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from leanmodel_api.errors import InputError, Issue
from leanmodel_api.report import ProveReport

from ..runs import only_run, write_atomic
from ..table import report_lines

HELP = "show the proof of the lean model"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="the LeanModel; default: the only one")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace (default: default)")
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "json", "html"),
        default="table",
        help="what to print (default: table)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of standard output")


def run(arguments: Namespace) -> int:
    """Print the report; return 0 when there is one."""
    run = only_run(arguments.name, arguments.namespace)
    source = run.page if arguments.output == "html" else run.report
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            Issue(run.root.name, "has no report yet", "`leanmodel status` says where the work stands")
        ) from None
    if arguments.output == "table":
        text = (
            "\n".join([*report_lines(ProveReport.model_validate_json(text)), "", f"page: {run.page}"]) + "\n"
        )
    if arguments.out is not None:
        write_atomic(arguments.out, text)
        print(f"written: {arguments.out}")
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return 0
