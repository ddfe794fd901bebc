"""What the two offline commands share: JSON for machines, a table for people."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from leanmodel_api.evaluation import MOST_HELD
from leanmodel_api.policy import PolicyEvaluation
from leanmodel_api.routing_policy import RoutingEvaluation, RoutingPolicy
from leanmodel_routing.bounds import LEVEL, bound_lines
from leanmodel_routing.monitors.score_drift import requests_to_see, worse

from .runs import write_atomic
from .table import columns, second_lines, stated

SHIFTED, TAIL = 0.2, 0.1
"""The drift whose price is printed: this share of the requests scores like the worst tail."""


def fraction(text: str) -> float:
    """Parse an argument that lies between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a number above 0 and at most 1, such as 0.95"
        )
    return value


def dollars(text: str) -> float:
    """Parse an argument that is an amount of money, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected 0 or more, such as 0.002")
    return value


def tokens(text: str) -> int:
    """Parse an argument that is a number of tokens, 1 to 1024."""
    value = int(text) if text.isdecimal() else 0
    if not 1 <= value <= MOST_HELD:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected 1 to {MOST_HELD} tokens, such as 32")
    return value


def evaluation_lines(evaluation: PolicyEvaluation, notes: Sequence[str]) -> list[str]:
    """Return an evaluation as a table for people."""
    certificate = evaluation.certificate
    rows = [["", "quality", "to large", "cost"]]
    rows.append(
        [
            f"this policy ({_kind(evaluation)})",
            f"{evaluation.quality:.4f}",
            f"{evaluation.large_share:.1%}",
            _cost(evaluation.cost),
        ]
    )
    for name in ("always_lean", "always_large", "random", "oracle"):
        base = getattr(evaluation.baselines, name)
        rows.append(
            [name.replace("_", " "), f"{base.quality:.4f}", f"{base.large_share:.1%}", _cost(base.cost)]
        )
    figures = [
        [
            name,
            "-" if value is None else f"{value:.4f}",
            _interval(evaluation, key),
            evaluation.reasons.get(key, ""),
        ]
        for name, key, value in (
            ("CPT(50)", "cpt50", evaluation.cpt50),
            ("CPT(80)", "cpt80", evaluation.cpt80),
            ("APGR", "apgr", evaluation.apgr),
            ("AIQ", "aiq", evaluation.aiq),
        )
    ]
    state = "certified" if certificate.certified else "not certified"
    lines = [
        f"promise: at least {stated(certificate.retain)} of the large model's mean quality, with confidence {stated(certificate.confidence)}: "
        f"{state} ({certificate.method}, n={certificate.n}, p={certificate.p_value:.3g})",
        f"  {certificate.message}", *bound_lines(evaluation.label_free), "", *columns(rows), "", *columns(figures),
    ]  # fmt: skip
    return lines + ([""] + [f"  note: {note}" for note in notes] if notes else [])


def policy_lines(policy: RoutingPolicy) -> list[str]:
    """Return what was chosen among, the rules of groups, and what drift it takes to be seen, for people."""
    rows = [["", "cost, predicted", "asks lean", "to large"]]
    for item in policy.considered:
        cost = _cost(item.cost) if item.basis == "usd" else f"{item.cost:.4f} large calls"
        name = item.strategy + (" (chosen)" if item.chosen else "")
        rows.append([name, cost, f"{item.lean_calls:.1%}", f"{item.large_share:.1%}"])
    lines = ["", "strategies, as the fit part predicts them:", *columns(rows)]
    if policy.groups:
        lines += ["", "groups:"]
        lines += [
            f"  {name} ({rule.kind}): {rule.certificate.message}" for name, rule in policy.groups.items()
        ]
    if policy.under_pressure is not None:
        lines += ["", *second_lines(policy.under_pressure, policy.relaxed() is not None)]
    if policy.scores is not None:
        needed = requests_to_see(policy.scores, worse(policy.scores, SHIFTED, TAIL), LEVEL)
        seen = (
            "is not seen: too few certified scores"
            if needed is None
            else f"is seen after about {needed} requests"
        )
        lines += [
            "",
            f"drift: {SHIFTED:.0%} of the requests scoring like the worst {TAIL:.0%} of the {policy.scores.n} certified "
            f"ones {seen} (9 times in 10; {LEVEL:.0%} risk of ever a false alarm)",
        ]
    return lines


def _kind(evaluation: PolicyEvaluation) -> str:
    grouped = isinstance(evaluation, RoutingEvaluation) and evaluation.rules
    return "by group" if grouped else evaluation.kind


def _interval(evaluation: PolicyEvaluation, key: str) -> str:
    found = evaluation.intervals.get(key)
    return "" if found is None else f"[{found.low:.4f}, {found.high:.4f}]"


def _cost(cost: float | None) -> str:
    return "-" if cost is None else f"${cost:.3g}"


def emit(document: str, out: Path | None, table: Sequence[str]) -> None:
    """Write the document to ``out``, or to standard output with the table on standard error."""
    if out is None:
        print(document)
        print("\n".join(table), file=sys.stderr)
    else:
        write_atomic(out, document + "\n")
        print("\n".join(table))
        print(f"\nwritten: {out}")
