"""From what a row's Job told and what it answered to its line. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from leanmodel_api.datasets import DataSet
from leanmodel_api.plan import CompressResult
from leanmodel_api.report import Estimate

from . import judge
from .rows import Row
from .table import Line

METRICS = ("ChoiceAccuracy", "BalancedAccuracy")
"""Those of which it is told what a row keeps."""


def line_of(
    row: Row, made: CompressResult, told: Mapping[str, Any], large: Mapping[str, Any], data: DataSet | None
) -> Line:
    """Return a row's line.

    Args:
        row: which.
        made: what its Job told.
        told: what was kept of it: ``judged`` answers, ``load`` and ``date`` when it began, and ``foretold``, its peak
            memory in bytes as `leanmodel estimate` says it today (None where it was not asked).
        large: the answers of its subject's large model.
        data: the subject's data set, where it has choices.
    """
    steps = made.steps
    peaks = (step.figures.get("peakAnonymousBytes", 0.0) for step in steps)
    before = max((step.estimated_memory_bytes for step in steps), default=0)
    return Line(
        row=row,
        date=str(told.get("date", "")),
        bytes=made.bytes,
        parameters=made.parameters,
        seconds=sum(step.seconds for step in steps),
        peak=int(max(peaks, default=0)),
        estimated=told.get("foretold") or before,
        busy=told["load"] > 0.5 * (os.cpu_count() or 1),
        figures=figures(told["judged"], large, data),
    )


def figures(judged: Mapping[str, Any], large: Mapping[str, Any], data: DataSet | None) -> dict[str, Estimate]:
    """Return the figures of a model's answers, and what they keep of the large model's."""
    mine, theirs = dict(judged), dict(large)
    if data is None:
        return {"perplexity": judge.perplexity(mine), "ratio": judge.perplexity_ratio(mine, theirs)}
    kept = {f"kept {metric}": judge.kept(mine, theirs, data, metric) for metric in METRICS}
    return {**judge.choices(mine, data), **kept}
