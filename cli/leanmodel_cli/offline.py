"""What the two offline commands share: JSON for machines, a table for people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from leanmodel_api.policy import PolicyEvaluation

from .runs import write_atomic
from .table import columns, stated


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


def evaluation_lines(evaluation: PolicyEvaluation, notes: Sequence[str]) -> list[str]:
    """Return an evaluation as a table for people."""
    certificate = evaluation.certificate
    rows = [["", "quality", "to large", "cost"]]
    rows.append(
        [
            f"this policy ({evaluation.kind})",
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
        [name, "-" if value is None else f"{value:.4f}", evaluation.reasons.get(name, "")]
        for name, value in (
            ("CPT(50)", evaluation.cpt50),
            ("CPT(80)", evaluation.cpt80),
            ("APGR", evaluation.apgr),
            ("AIQ", evaluation.aiq),
        )
    ]
    state = "certified" if certificate.certified else "not certified"
    lines = [
        f"promise: at least {stated(certificate.retain)} of the large model's mean quality, with confidence {stated(certificate.confidence)}: "
        f"{state} ({certificate.method}, n={certificate.n}, p={certificate.p_value:.3g})",
        f"  {certificate.message}", "", *columns(rows), "", *columns(figures),
    ]  # fmt: skip
    return lines + ([""] + [f"  note: {note}" for note in notes] if notes else [])


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
