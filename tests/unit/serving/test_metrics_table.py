"""The table of metrics keeps the conventions, and docs/metrics.md is made from it."""

from __future__ import annotations

import re
from pathlib import Path

from leanmodel_serving.metrics import METRICS, Meters, PutBy, markdown

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


class Told:
    """A metric of Ray's that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, dict[str, str]]] = []

    def inc(self, value: float, labels: dict[str, str]) -> None:
        self.calls.append((value, labels))

    set = inc


def test_counters_are_told_in_sum_and_gauges_by_their_latest_when_refreshed() -> None:
    counter, gauge = Told(), Told()
    meters = Meters({"leanmodel_requests": PutBy(counter), "leanmodel_requests_active": PutBy(gauge)})
    for status in ("200", "200", "404"):
        meters.count("leanmodel_requests", route="large", status=status)
    meters.set("leanmodel_requests_active", 1.0)
    meters.set("leanmodel_requests_active", 2.0)
    assert not counter.calls and not gauge.calls
    meters.refresh()
    assert counter.calls == [
        (2.0, {"route": "large", "status": "200"}),
        (1.0, {"route": "large", "status": "404"}),
    ]
    assert gauge.calls == [(2.0, {})]
    meters.refresh()
    assert len(counter.calls) == 2 and gauge.calls == [(2.0, {}), (2.0, {})], (
        "a gauge is set again, a counter is not"
    )
