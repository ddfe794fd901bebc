"""The table of metrics keeps the conventions, and docs/metrics.md is made from it."""

from __future__ import annotations

import re
from pathlib import Path

from leanmodel_serving.metrics import METRICS, markdown

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_document_is_the_table() -> None:
    assert DOCUMENT.read_text() == markdown(), "run: python -m leanmodel_serving.metrics > docs/metrics.md"


def test_names_and_units_keep_prometheus_conventions() -> None:
    assert len({row.name for row in METRICS}) == len(METRICS)
    for row in METRICS:
        assert re.fullmatch(r"(leanmodel|gen_ai)_[a-z_]+", row.name), row.name
        assert not row.name.endswith("_total"), "Ray adds it"
        assert (row.unit == "seconds") == row.name.endswith("_seconds"), row.name
        assert (row.unit == "US dollars") == row.name.endswith("_usd"), row.name
        assert bool(row.buckets) == (row.kind == "histogram"), row.name
        assert list(row.buckets) == sorted(row.buckets)
        assert row.help.endswith(".")


def test_no_label_can_grow_with_requests() -> None:
    allowed = {
        "route",
        "status",
        "reason",
        "kind",
        "decision",
        "gen_ai_token_type",
        "role",
        "revision",
        "basis",
        "result",
        "monitor",
        "window",
        "promise",
        "cause",
        "tenant",  # as many as people give keys to
    }
    assert {label for row in METRICS for label in row.labels} <= allowed
