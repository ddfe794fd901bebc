"""The operator's own metrics, for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

RESULTS = ("ok", "retry", "error")
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Conditions(Collector):
    """Counts LeanModels by condition and state; kept up as their statuses are seen."""

    def __init__(self) -> None:
        """Start without any."""
        self._states: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {}

    def saw(self, name: tuple[str, str], status: Mapping[str, Any] | None) -> None:
        """Note a LeanModel's status; None when it is gone."""
        if status is None:
            self._states.pop(name, None)
            return
        self._states[name] = tuple((c["type"], c["status"]) for c in status.get("conditions", ()))

    def collect(self) -> Iterable[Metric]:
        """Give the counts."""
        found = GaugeMetricFamily(
            "leanmodel_operator_objects",
            "LeanModels by condition and its status.",
            labels=["condition", "status"],
        )
        for (kind, state), count in sorted(
            Tally(s for states in self._states.values() for s in states).items()
        ):
            found.add_metric([kind, state], count)
        yield found
        yield GaugeMetricFamily(
            "leanmodel_operator_leanmodels", "LeanModels that are looked after.", value=len(self._states)
        )


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        """Register everything."""
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "leanmodel_operator_reconciles", "Turns of the loop by result: ok, retry or error.", ["result"],
            registry=self.registry,
        )  # fmt: skip
        for result in RESULTS:  # there from the start, so that a first error is an increase and no new series
            self.reconciles.labels(result=result)
        self.seconds = Histogram(
            "leanmodel_operator_reconcile_seconds",
            "Seconds of a turn.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.depth = Gauge(
            "leanmodel_operator_queue_depth", "LeanModels that wait for a worker.", registry=self.registry
        )
        self.calls = Counter(
            "leanmodel_operator_api_calls", "Calls of the Kubernetes API by verb and HTTP status (0: no answer).",
            ["verb", "code"], registry=self.registry,
        )  # fmt: skip
        self.leader = Gauge(
            "leanmodel_operator_leader", "1 while this replica leads.", registry=self.registry
        )
        self.conditions = Conditions()
        self.registry.register(self.conditions)

    def turned(self, result: str, seconds: float) -> None:
        """Count one turn."""
        self.reconciles.labels(result=result).inc()
        self.seconds.observe(seconds)

    def called(self, verb: str, status: int) -> None:
        """Count one call of the API."""
        self.calls.labels(verb=verb, code=str(status)).inc()

    def render(self) -> bytes:
        """Return all in Prometheus' text format."""
        return bytes(generate_latest(self.registry))
