"""Every metric of the router: one table, from which the objects and docs/metrics.md are made.

Names and units follow Prometheus (base units, ``_total`` on counters) and OpenTelemetry's GenAI conventions, dots
as underscores. Ray puts ``ray_`` before each name and adds the labels application, deployment, replica and node.
Labels are closed sets, but for ``revision``, of which there are a few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PREFIX = "ray_"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
_TOKENS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0)
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: as given to Ray, without ``ray_`` and without ``_total``.
        kind: Prometheus' type.
        labels: label names of our own.
        unit: unit of the value.
        help: what it counts.
        buckets: upper bounds, for histograms.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    unit: str
    help: str
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name as Prometheus sees it (a histogram's without _bucket, _sum, _count)."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


METRICS: tuple[Metric, ...] = (
    Metric("leanmodel_requests", "counter", ("route", "status"), "requests",
           "Requests for a generation, by route (lean, large, escalated, external; none: refused or failed before an answer) "
           "and HTTP status (499: the client went away)."),
    Metric("leanmodel_escalations", "counter", ("reason",), "requests",
           "Requests that the lean model was asked and the large one answered: confidence (below the threshold), "
           "lean_failed."),
    Metric("leanmodel_out_of_scope", "counter", ("kind",), "requests",
           "Requests sent to the large model because the certificate does not speak of them, by what differs."),
    Metric("leanmodel_decisions", "counter", ("reason",), "requests",
           "Answered requests by what chose the route: policy, scope (outside of the certificate), alarm, conversation "
           "(it went to the large model before), override (the request's own headers), lean-failing, large-failing (the external "
           "provider or the lean model stands in, the promise is suspended), budget (no money for the large model: the lean one "
           "answers alone), fixed (no policy)."),
    Metric("leanmodel_promises", "counter", ("promise",), "requests",
           "Answered requests by the promise that covers them: full (the policy's), under-pressure (its second, cheaper one), "
           "suspended (somebody stands in, or the lean model answers alone over budget), none."),
    Metric("leanmodel_pressure", "gauge", ("cause",), "0 or 1",
           "1: the replica is under pressure by its budget, concurrency or queue, and the second promise is in force. "
           "Absent without a second promise."),
    Metric("leanmodel_shadows", "counter", ("result",), "requests",
           "Accepted requests that the large model was asked too, after the answer was sent: same, different, failed "
           "(no answer, or no budget for one), skipped (too many under way)."),
    Metric("leanmodel_alarm", "gauge", ("monitor",), "0 or 1",
           "1: the monitor (label-free, score-drift; of a second promise under-pressure/ before it) has found the promise broken, and all requests go to the large "
           "model until it is proven anew."),
    Metric("leanmodel_watch_kept", "gauge", (), "0 or 1",
           "0: the monitors' state could not be written at the last look; what was counted goes along the next time."),
    Metric("leanmodel_confidence", "histogram", ("decision",), "ratio",
           "Calibrated confidence of lean answers, by decision (accepted, escalated).", _SHARES),
    Metric("leanmodel_lean_skipped", "counter", (), "requests",
           "Requests sent to the large model because the lean engine failed repeatedly just before."),
    Metric("leanmodel_external_requests", "counter", ("result",), "requests",
           "Requests that the large model could not answer, by what became of them at the external provider: answered, "
           "refused, rate-limited, failed; or not sent there: closed (not allowed at that moment, or no key), resting (its "
           "breaker is open), tools, images, context, endpoint (it cannot do that), override, cost (the request's own "
           "headers). None where no provider is allowed."),
    Metric("leanmodel_retries", "counter", ("role", "result"), "requests",
           "Requests tried a second time before their first byte, by backend (large, external): answered, failed; "
           "no-budget: not tried, too many were."),
    Metric("leanmodel_backend_state", "gauge", ("role",), "state",
           "Breaker of lean, large and external: 0 closed, 1 half-open (one request tries), 2 open (left alone)."),
    Metric("gen_ai_client_token_usage", "histogram", ("gen_ai_token_type", "role", "revision"), "tokens",
           "Tokens per generation, by type (input, output) and by the model that worked (role lean, large or external); an "
           "escalated request has one of each.", _TOKENS),
    Metric("leanmodel_tokens", "counter", ("gen_ai_token_type", "role", "revision"), "tokens",
           "The same tokens, counted exactly (Ray exports histograms with sums that are only near)."),
    Metric("gen_ai_server_request_duration_seconds", "histogram", ("route",), "seconds",
           "Whole duration of answered requests, first byte read to last byte sent.", _SECONDS),
    Metric("gen_ai_server_time_to_first_token_seconds", "histogram", ("route",), "seconds",
           "Until the first event was sent; streams only.", _SECONDS),
    Metric("gen_ai_server_time_per_output_token_seconds", "histogram", ("route",), "seconds",
           "Mean time of the tokens after the first as the engine streamed them to the router; streams only.",
           _PER_TOKEN),
    Metric("leanmodel_cost_usd", "counter", ("route", "basis"), "US dollars",
           "Cost of answered requests, lean attempt included, by route and basis (tokens, throughput, wall-time); route "
           "shadow: what watching the promise cost."),
    Metric("leanmodel_counterfactual_cost_usd", "counter", ("route", "basis"), "US dollars",
           "Cost of the same requests had all gone to the large model."),
    Metric("leanmodel_saving_usd", "gauge", ("route", "basis"), "US dollars",
           "Counterfactual cost minus cost since the replica started; below 0 where escalation cost more."),
    Metric("leanmodel_budget_usd", "gauge", ("window",), "US dollars",
           "The LeanModel's budget, by window (hour, day)."),
    Metric("leanmodel_budget_left_usd", "gauge", ("window",), "US dollars",
           "What is left of it in the running window, neither spent nor reserved by requests under way; every replica "
           "shows the same ledger."),
    Metric("leanmodel_ledger_kept", "gauge", (), "0 or 1",
           "0: the ledger cannot be written to its file; where there is a budget, requests are refused. Absent without one."),
    Metric("leanmodel_refused", "counter", ("reason",), "requests",
           "Requests that a bound of the router turned away: invalid_api_key, insufficient_quota and budget_too_small "
           "(budget), rate_limit_exceeded (a key's), queue_full, queue_timeout, body_timeout, request_too_large, "
           "request_timeout, ledger_unavailable."),
    Metric("leanmodel_requests_active", "gauge", (), "requests", "Requests under way in the replica."),
    Metric("leanmodel_requests_waiting", "gauge", (), "requests", "Requests that wait for a place in the replica."),
    Metric("leanmodel_tenant_cost_usd", "counter", ("tenant",), "US dollars",
           "Cost of answered requests by the tenant whose key was used."),
    Metric("leanmodel_internal_requests", "counter", ("status",), "requests",
           "Requests on the internal route (proving); in none of the other metrics."),
    Metric("leanmodel_settings_generation", "gauge", (), "generation",
           "Generation of the settings in force."),
    Metric("leanmodel_settings_errors", "counter", (), "files",
           "Settings files that were refused; the ones before stayed in force."),
)  # fmt: skip


class Meters:
    """The metrics as objects to count with."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        """Take the objects by name; see :func:`ray_meters`."""
        self._objects = objects
        self._saved: dict[tuple[str, str], int] = {}
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        if value:
            self._objects[name].inc(value, labels)

    def save(self, route: str, basis: str, nano: int) -> None:
        """Add nano-dollars (either sign, so no counter) to the saving of a route."""
        key = (route, basis)
        self._saved[key] = self._saved.get(key, 0) + nano
        self.set("leanmodel_saving_usd", self._saved[key] / 1e9, route=route, basis=basis)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put a value into a histogram."""
        self._objects[name].observe(value, labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._gauges[name, tuple(sorted(labels.items()))] = value
        self._objects[name].set(value, labels)

    def forget(self, name: str) -> None:
        """Show a gauge no longer; Ray drops it when it is not set again."""
        self._gauges = {key: value for key, value in self._gauges.items() if key[0] != name}

    def refresh(self) -> None:
        """Set every gauge again: Ray forgets one that was not set for two report intervals. Tell it what was put by."""
        for (name, labels), value in self._gauges.items():
            self._objects[name].set(value, dict(labels))
        for one in self._objects.values():
            if isinstance(one, PutBy):
                one.tell()


class PutBy:
    """A counter or gauge of Ray's that is told of only when :meth:`tell` is called.

    Telling Ray takes as long as reading a request does, and a request has eight such numbers. They are put by in plain
    Python, and told in sum by :meth:`Meters.refresh`, several times between two of Ray's own reports.
    """

    def __init__(self, found: Any) -> None:
        """Take Ray's object, which stays to be seen as ``rays``."""
        self.rays = found
        self._sums: dict[tuple[tuple[str, str], ...], float] = {}
        self._latest: dict[tuple[tuple[str, str], ...], float] = {}

    def inc(self, value: float, labels: dict[str, str]) -> None:
        """Add to a counter."""
        key = tuple(labels.items())
        self._sums[key] = self._sums.get(key, 0.0) + value

    def set(self, value: float, labels: dict[str, str]) -> None:
        """Set a gauge."""
        self._latest[tuple(labels.items())] = value

    def tell(self) -> None:
        """Tell Ray."""
        sums, self._sums = self._sums, {}
        latest, self._latest = self._latest, {}
        for key, value in sums.items():
            self.rays.inc(value, dict(key))
        for key, value in latest.items():
            self.rays.set(value, dict(key))


def ray_meters() -> Meters:
    """Return the metrics as objects of Ray Serve; inside a replica they carry its labels."""
    from ray.serve import metrics

    objects: dict[str, Any] = {}
    for row in METRICS:
        options: dict[str, Any] = {"description": row.help, "tag_keys": row.labels}
        if row.kind == "histogram":
            objects[row.name] = metrics.Histogram(row.name, boundaries=list(row.buckets), **options)
        else:
            made = metrics.Counter if row.kind == "counter" else metrics.Gauge
            objects[row.name] = PutBy(made(row.name, **options))
    return Meters(objects)


def markdown() -> str:
    """Return the table as docs/metrics.md."""
    lines = [
        "# Metrics of the router",
        "",
        "Made from `leanmodel_serving/metrics.py` by `python -m leanmodel_serving.metrics`; a test holds it against "
        "what is really exposed.",
        "",
        "Ray exports histograms by their buckets: counts are exact, `_sum` is put together from the buckets' middles.",
        "",
        "Ray adds the labels `application`, `deployment`, `replica` and its own (node, version, session). Engines "
        "expose vLLM's `vllm:*` metrics at `/engines/<revision>/metrics`, behind the engines' token.",
        "",
        "| metric | type | labels | unit | what it says |",
        "|---|---|---|---|---|",
    ]
    for row in METRICS:
        labels = ", ".join(f"`{label}`" for label in row.labels) or "–"
        lines.append(f"| `{row.exposed}` | {row.kind} | {labels} | {row.unit} | {row.help} |")
    lines += [
        "",
        "What adds up: the sum of `ray_leanmodel_requests_total` over routes is the number of requests; "
        "`ray_leanmodel_saving_usd` is `ray_leanmodel_counterfactual_cost_usd_total` minus "
        "`ray_leanmodel_cost_usd_total`, route by route.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
