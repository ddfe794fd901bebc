"""The dashboard and the alert rules on a real Prometheus that scrapes a real router: every query about it has data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from serving_support import LARGE, LEAN, NAME, Stack, issue_to, policy, replace, until

from leanmodel_api.budget import Budget
from leanmodel_api.external import ExternalAccess, Provider
from leanmodel_api.pressure import Strain
from leanmodel_api.router import Watching
from leanmodel_api.routing_policy import RoutingPolicy, SecondPoint

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from chart_files import queries  # noqa: E402
from cluster.prometheus import Prometheus, program  # noqa: E402
from cluster.words import ClusterError  # noqa: E402

THEIRS = "leanmodel_operator_"
DASHBOARD = [q for q in (*queries.dashboard_queries(), *queries.variable_queries()) if THEIRS not in q.text]
SELECTORS = sorted(
    {
        use.selector
        for q in queries.rule_queries()
        for use in queries.uses(q.text)
        if not use.name.startswith(THEIRS)
    }
)
TARGET = {"namespace": "ml", "leanmodel": NAME, "pod": f"lm-{NAME}-head", "part": "head"}
"""The labels that the chart's PodMonitor gives; tests/charts holds that it does."""
DEAD = "http://127.0.0.1:9"
NOBODY = ExternalAccess(permission="Allowed", provider=Provider(base_url=DEAD, model="theirs"))


@pytest.fixture
def prometheus(pair: Stack, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the host every second."""
    try:
        program("prometheus")
    except ClusterError as error:
        pytest.skip(str(error).replace("\n", ";"))
    target = pair.status()["metrics"].removeprefix("http://").removesuffix("/metrics")
    job = {"job_name": "ml/leanmodel-serving", "static_configs": [{"targets": [target], "labels": TARGET}]}
    running = Prometheus(
        tmp_path, {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
    )
    running.start()
    yield running
    running.stop()


def ask(stack: Stack, **body: object) -> int:
    """Ask for a short answer, streamed and whole; the status of the last."""
    for stream in (True, False):
        more = {"stream_options": {"include_usage": True}} if stream else {}
        reply = stack.post(
            "/v1/completions", {"prompt": "Hello", "max_tokens": 3, "stream": stream, **more, **body}
        )
    return reply.status_code


def is_lean(stack: Stack) -> bool:
    """Whether the lean model answers; after it was passed over it rests for some seconds."""
    reply = stack.post("/v1/completions", {"prompt": "Hello", "max_tokens": 1})
    return reply.headers["x-leanmodel-route"] == "lean"


def two(threshold: float) -> RoutingPolicy:
    """The tests' policy with a second, cheaper promise."""
    first = policy(threshold)
    second = SecondPoint(
        kind="cascade", threshold=threshold / 2, expected_large_share=0.2,
        certificate=first.certificate.model_copy(update={"retain": 0.9}),
    )  # fmt: skip
    whole = {name: getattr(first, name) for name in type(first).model_fields if name != "version"}
    return RoutingPolicy(**{**whole, "digest": "", "under_pressure": second}).sealed()


def traffic(stack: Stack) -> None:
    """Send requests down every way there is, the broken ones included."""
    # The gauges of a budget and of pressure go with them, so there are both all the while.
    bounds = {"budget": Budget(usd_per_hour="1000", usd_per_day="1000"), "pressure": Strain(concurrency=1000)}
    configure = partial(stack.configure, **bounds)
    configure(lean=stack.backend(LEAN), strategy="Cascade", policy=two(1e-9))
    until(lambda: is_lean(stack), 20.0, "the lean model is asked again")
    for threshold in (1e-9, 1.0):  # each answer accepted; each escalated
        configure(lean=stack.backend(LEAN), strategy="Cascade", policy=two(threshold))
        assert ask(stack) == 200
    # Another policy than the rest's: what its shadows find is held against it for good.
    seen = {"policy": two(2e-9), "watching": Watching(shadowing=1.0)}
    configure(lean=stack.backend(LEAN), strategy="Cascade", **seen)
    assert ask(stack) == 200
    configure(lean=stack.backend(LEAN), strategy="Cascade", policy=two(1.0))
    assert ask(stack, stop=["q"]) == 200  # out of the certificate's scope
    assert (
        stack.internal(LARGE, "/v1/completions", {"model": NAME, "prompt": "a", "max_tokens": 1}).status_code
        == 200
    )
    assert stack.post("/v1/completions", {"prompt": 5}).status_code == 400
    key = issue_to(stack, "team-a")
    configure(access="Keys")
    assert stack.post("/v1/completions", {"prompt": "a"}).status_code == 401
    body, headers = {"prompt": "Hello", "max_tokens": 1}, {"authorization": f"Bearer {key}"}
    known = lambda: stack.client.get("/v1/models", headers=headers).status_code == 200  # noqa: E731
    until(known, 20.0, "the key is known")
    assert stack.post("/v1/completions", body, headers=headers).status_code == 200
    configure(lean=stack.backend(LEAN, url=DEAD), strategy="Cascade", policy=two(1e-9))
    for _ in range(3):  # the lean engine fails until it is passed over
        assert ask(stack) == 200
    # Neither the large model nor the provider is there.
    configure(large=stack.backend(LARGE, url=DEAD), external=NOBODY)
    assert ask(stack) >= 500
    replace(stack.settings_file, "{}")
    until(lambda: stack.client.get("/healthz").json()["settingsError"], 10.0, "the file is refused")
    configure(lean=stack.backend(LEAN), strategy="Cascade", policy=two(1e-9))
    assert ask(stack) == 200


def test_every_query_about_the_router_returns_data(pair: Stack, prometheus: Prometheus) -> None:
    missing: dict[str, str] = {}

    def all_shown() -> bool:
        traffic(pair)
        missing.clear()
        for query in DASHBOARD:
            text = queries.filled(
                query.text, __rate_interval="30s", __range="5m", namespace="ml", leanmodel=NAME
            )
            found = prometheus.query(text)
            if not found or not any(sample.is_number for sample in found):
                missing[query.where] = f"{text} gives {found}"
        for selector in SELECTORS:
            if not prometheus.query(selector):
                missing[selector] = "gives nothing"
        return not missing

    try:
        until(all_shown, 120.0, "every query returns data")
    except AssertionError as error:
        raise AssertionError(missing) from error
    totals = {name: prometheus.query(f"sum(ray_leanmodel_{name}_total)")[0].value
              for name in ("cost_usd", "counterfactual_cost_usd")}  # fmt: skip
    saved = prometheus.query("sum(ray_leanmodel_saving_usd)")[0].value
    assert saved == pytest.approx(totals["counterfactual_cost_usd"] - totals["cost_usd"], abs=1e-9)
