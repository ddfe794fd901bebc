"""leanmodel validate: check a manifest without doing anything."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..runs import read_manifest

HELP = "check a manifest: schema, cross-field rules, and what this version does not do yet"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "-f", "--file", type=Path, required=True, metavar="FILE", help="manifest (YAML or JSON)"
    )


def run(arguments: Namespace) -> int:
    """Check the manifest; return 0 when it is valid."""
    model = read_manifest(arguments.file)
    spec = model.spec
    steps = ", ".join(step.type for step in (spec.lean.steps or [])) if spec.lean else ""
    found = "to be found" if spec.lean is not None and spec.lean.search is not None else "brought along"
    lean = "none" if spec.lean is None else steps or found
    if steps and spec.lean is not None and spec.lean.source is not None:
        lean = f"{spec.lean.source.uri}, then {steps}"
    print(
        f"{model.metadata.namespace}/{model.metadata.name} is valid: large {spec.large.source.uri if spec.large.source else '?'}, lean: {lean}"
    )
    return 0
