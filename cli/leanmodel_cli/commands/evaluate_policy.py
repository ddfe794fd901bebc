"""leanmodel evaluate-policy: hold a policy against records it has not seen."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from leanmodel_routing.evaluate import evaluate_policy
from leanmodel_routing.io import read_policy, read_records

from ..offline import emit, evaluation_lines

HELP = "hold a policy against records it has not seen"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--policy", type=Path, required=True, metavar="policy.json", help="what `leanmodel calibrate` wrote"
    )
    parser.add_argument(
        "--records", type=Path, required=True, metavar="T.jsonl", help="JSON lines as for calibrate"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the figures there (default: standard output)"
    )


def run(arguments: Namespace) -> int:
    """Evaluate and write the figures; return 0."""
    policy = read_policy(arguments.policy)
    records, notes = read_records(arguments.records)
    evaluation = evaluate_policy(policy, records)
    document = evaluation.model_dump(mode="json")
    document["notes"] = [*notes, *document["notes"]]
    emit(json.dumps(document, indent=2), arguments.out, evaluation_lines(evaluation, document["notes"]))
    return 0
