"""The table of metrics against what Ray really exposes, and what must add up."""

from __future__ import annotations

import re

import pytest
from serving_support import LEAN, Stack, policy, sample, until

from leanmodel_serving.metrics import METRICS


def _types(text: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))


def _labels(text: str, name: str) -> set[str]:
    found: set[str] = set()
    for labels in re.findall(rf"^{re.escape(name)}(?:_bucket)?\{{(.*)\}} ", text, re.M):
        found.update(re.findall(r'(\w+)="', labels))
    return found


def test_the_table_is_what_is_exposed_and_it_adds_up(pair: Stack) -> None:
    names = ("requests", "cost_usd", "counterfactual_cost_usd")

    def totals() -> dict[str, float]:
        text = pair.metrics()
        return {name: sample(text, f"ray_leanmodel_{name}_total") for name in names}

    def told() -> bool:
        return sample(pair.metrics(), "ray_leanmodel_settings_generation") == float(pair.generation)

    # What other tests asked is counted by the time that these settings are exposed: both are told to Ray at once.
    pair.configure(lean=pair.backend(LEAN))
    until(told, 20.0, "the settings are exposed")
    before = totals()
    sent, cost = 0, 0.0
    for threshold, stream in ((1e-9, False), (1e-9, True), (1.0, False), (1.0, True)):
        pair.configure(lean=pair.backend(LEAN), strategy="Cascade", policy=policy(threshold))
        for temperature in (0, 1):
            body = {"prompt": "Hello", "max_tokens": 3, "stream": stream, "temperature": temperature}
            reply = pair.post(
                "/v1/completions", {**body, "stream_options": {"include_usage": True}} if stream else body
            )
            sent += 1
            found = re.search(r'"cost_usd":"([^"]+)"', reply.text)
            cost += float(found[1]) if found else float(reply.headers["x-leanmodel-cost-usd"])
    pair.configure(lean=pair.backend(LEAN), strategy="Cascade", policy=policy(1e-9))
    outside = pair.post("/v1/completions", {"prompt": "Hello", "stop": ["q"], "max_tokens": 2})
    cost += float(outside.headers["x-leanmodel-cost-usd"])
    assert pair.post("/v1/completions", {"prompt": 5}).status_code == 400
    sent += 2

    def counted() -> bool:
        return totals()["requests"] == before["requests"] + sent

    until(counted, 20.0, "all requests are counted")
    text = pair.metrics()

    types = _types(text)
    ours = {name for name in types if name.startswith(("ray_leanmodel_", "ray_gen_ai_"))}
    rare = {
        "ray_leanmodel_lean_skipped_total",
        "ray_leanmodel_settings_errors_total",
        "ray_leanmodel_shadows_total",
        "ray_leanmodel_external_requests_total",
        "ray_leanmodel_retries_total",
        "ray_leanmodel_budget_usd",
        "ray_leanmodel_budget_left_usd",
        "ray_leanmodel_ledger_kept",
        "ray_leanmodel_refused_total",
        "ray_leanmodel_tenant_cost_usd_total",
        "ray_leanmodel_pressure",
    }  # need a failure, a budget, a key or a second promise to appear
    table = {row.exposed: row for row in METRICS}
    assert ours <= set(table)
    assert set(table) - ours <= rare
    for name in ours:
        assert types[name] == table[name].kind, name
        assert set(table[name].labels) <= _labels(text, name), name
        assert {"application", "deployment", "replica"} <= _labels(text, name), name

    by_route = [
        sample(text, "ray_leanmodel_requests_total", route=way)
        for way in ("lean", "large", "escalated", "none")
    ]
    assert sum(by_route) == sample(text, "ray_leanmodel_requests_total")
    assert sample(text, "ray_leanmodel_escalations_total") == by_route[2]
    answered = sample(text, "ray_leanmodel_requests_total", status="200")
    assert sample(text, "ray_gen_ai_server_request_duration_seconds_count") == answered
    spent = sample(text, "ray_leanmodel_cost_usd_total")
    counterfactual = sample(text, "ray_leanmodel_counterfactual_cost_usd_total")
    assert sample(text, "ray_leanmodel_saving_usd") == pytest.approx(counterfactual - spent, abs=1e-9)
    for way in ("lean", "large", "escalated"):
        difference = sample(text, "ray_leanmodel_counterfactual_cost_usd_total", route=way) - sample(
            text, "ray_leanmodel_cost_usd_total", route=way
        )
        assert sample(text, "ray_leanmodel_saving_usd", route=way) == pytest.approx(difference, abs=1e-9)
    # The money in the metrics is the money that the clients were told.
    assert spent - before["cost_usd"] == pytest.approx(cost, rel=1e-6)


def test_gauges_stay_between_requests(pair: Stack) -> None:
    wanted = float(pair.generation)
    for _ in range(3):
        until(
            lambda: sample(pair.metrics(), "ray_leanmodel_settings_generation") == wanted,
            10.0,
            "the gauge is there",
        )
