"""leanmodel calibrate: fit and certify a routing policy on records, offline."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from leanmodel_routing.calibration import calibrate
from leanmodel_routing.io import read_records

from ..offline import emit, evaluation_lines, fraction

HELP = "fit and certify a routing policy on records of both models"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--records", type=Path, required=True, metavar="R.jsonl",
        help="JSON lines {prompt, lean_quality, large_quality, lean_answer?, lean_logprobs?, lean_cost?, large_cost?, group?}",
    )  # fmt: skip
    parser.add_argument(
        "--retain",
        type=fraction,
        default=0.95,
        help="share of the large model's mean quality that is kept (default: 0.95)",
    )
    parser.add_argument(
        "--confidence", type=fraction, default=0.9, help="chance that the promise holds (default: 0.9)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the split into fit, certify and report (default: 0)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the policy there (default: standard output)"
    )


def run(arguments: Namespace) -> int:
    """Calibrate and write the policy with its evaluation; return 0 whether or not something was certified."""
    records, notes = read_records(arguments.records)
    result = calibrate(records, retain=arguments.retain, confidence=arguments.confidence, seed=arguments.seed)
    document = result.document()
    document["notes"] = [*notes, *document["notes"]]
    emit(
        json.dumps(document, indent=2), arguments.out, evaluation_lines(result.evaluation, document["notes"])
    )
    return 0
