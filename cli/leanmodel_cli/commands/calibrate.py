"""leanmodel calibrate: fit and certify a routing policy on records, offline."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from leanmodel_api.policy import Scope
from leanmodel_routing.io import read_records
from leanmodel_routing.policies import STRATEGIES
from leanmodel_routing.routing_calibration import calibrate_routing

from ..offline import dollars, emit, evaluation_lines, fraction, policy_lines, tokens

HELP = "fit and certify a routing policy on records of both models"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--records", type=Path, required=True, metavar="R.jsonl",
        help="JSON lines {prompt, lean_quality, large_quality, lean_answer?, lean_logprobs?, response_schema?, lean_cost?, large_cost?, lean_latency?, large_latency?, group?}",
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
        "--strategy", choices=list(STRATEGIES), action="append", metavar="NAME",
        help=f"strategy to choose among, may be repeated: {', '.join(STRATEGIES)} (default: all, by their cost)",
    )  # fmt: skip
    parser.add_argument(
        "--usd-per-second", type=dollars, default=0.0, metavar="USD",
        help="what a second of a request's latency is worth when strategies are compared (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--per-group", action="store_true",
        help="keep the promise for each group of the records; small groups go to the large model",
    )  # fmt: skip
    parser.add_argument(
        "--hold-back", type=tokens, metavar="TOKENS",
        help="decide on so many first tokens of a lean answer (default: on the whole)",
    )  # fmt: skip
    parser.add_argument(
        "--under-pressure", type=fraction, metavar="RETAIN",
        help="a second, lower share that is kept under pressure; both hold together with the confidence (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the policy there (default: standard output)"
    )


def run(arguments: Namespace) -> int:
    """Calibrate and write the policy with its evaluation; return 0 whether or not something was certified."""
    records, notes = read_records(arguments.records)
    result = calibrate_routing(
        records,
        retain=arguments.retain,
        confidence=arguments.confidence,
        seed=arguments.seed,
        strategies=arguments.strategy or tuple(STRATEGIES),
        usd_per_second=arguments.usd_per_second,
        per_group=arguments.per_group,
        under_pressure=arguments.under_pressure,
        scope=Scope(decision=Scope.reading(arguments.hold_back)),
    )
    document = result.document()
    document["notes"] = [*notes, *document["notes"]]
    lines = evaluation_lines(result.evaluation, document["notes"]) + policy_lines(result.policy)
    emit(json.dumps(document, indent=2), arguments.out, lines)
    return 0
