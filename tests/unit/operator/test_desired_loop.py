"""What should be: tables of the loop's states, and what must hold whatever is observed."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.budget import Budget
from leanmodel_api.evaluation import Monitoring
from leanmodel_api.manifest import load
from leanmodel_api.plan import CompressPlan, CompressResult, ProvePlan, RevisionRef
from leanmodel_api.policy import Baseline, Baselines, Certificate, PartSizes, Policy, PolicyEvaluation
from leanmodel_api.pressure import Strain, UnderPressure
from leanmodel_api.report import Estimate, ProveReport, Speed, Verdict
from leanmodel_api.resource import LeanModel
from leanmodel_api.router import Broken, RouterLimits
from leanmodel_api.serving import TrafficLimits
from leanmodel_operator import probe
from leanmodel_operator.cluster.traffic import next_traffic
from leanmodel_operator.desired import Desired, desired
from leanmodel_operator.jobs import revision
from leanmodel_operator.router import router_settings
from leanmodel_operator.status import Observed, alarm_words, compute, phase

MODEL = load(yaml.safe_load((Path(__file__).parents[3] / "examples/quickstart/leanmodel.yaml").read_text()))
NO_LEAN = load(
    {
        "apiVersion": "leanmodel.io/v1alpha1", "kind": "LeanModel", "metadata": {"name": "plain"},
        "spec": {"large": {"source": {"uri": "file:weights"}}},
    }
)  # fmt: skip
NOW = "2026-01-01T00:00:00Z"


def key_file(secret: str) -> str:
    return f"/keys/{secret}"


def result(role: str, digit: str) -> CompressResult:
    return CompressResult.model_validate(
        {
            "name": "spam-filter",
            "role": role,
            "plan": "p",
            "artifact": "sha256:" + digit * 64,
            "bytes": 100 if role == "Large" else 30,
        }
    )


LARGE, LEAN = result("Large", "a"), result("Lean", "b")


def report(verdict: Verdict) -> ProveReport:
    def about(value: float) -> Estimate:
        return Estimate(value=value, low=value - 0.1, high=value + 0.1, n=10)

    routed = verdict in ("Routed", "LeanTakesAll")
    certificate = Certificate(
        retain=0.98, confidence=0.9, n=10, p_value=0.01 if routed else 0.9, certified=routed,
        outcome="lean-at-least-as-good" if routed else "promise-not-shown", message="m",
        parts=PartSizes(fit=1, certify=10, report=1),
    )  # fmt: skip
    policy = Policy(
        kind="all-lean" if routed else "all-large",
        threshold=0.0 if routed else 1.0,
        certificate=certificate,
        expected_large_share=0.1,
    ).sealed()
    base = Baseline(large_share=1.0, quality=0.9)
    refs = [RevisionRef(name=revision(r).name, artifact=r.artifact, bytes=r.bytes) for r in (LARGE, LEAN)]
    speed = Speed(requests_per_second=about(2.0), tokens_per_second=40.0, p50_ms=1.0, p99_ms=2.0)
    return ProveReport(
        name="spam-filter", created=NOW, large=refs[0], lean=refs[1], metric="BalancedAccuracy", parts={}, verdict=verdict,
        reason="why", gates=[], models=[], size_ratio=about(0.3), throughput_ratio=about(3.0), quality_retained=about(0.99),
        lean_quality_retained=about(0.9), speed={"large": speed, "lean": speed}, policy=policy,
        evaluation=PolicyEvaluation(
            large_share=0.1, quality=0.9, certificate=certificate, n=10, kind="all-lean", promise_held=True, cost_basis="large-share",
            baselines=Baselines(always_lean=base, always_large=base, random=base, oracle=base),
        ),
    )  # fmt: skip


def wanted(seen: Observed, model: LeanModel = MODEL) -> Desired:
    return desired(model, seen, cores=2, base_dir=".", engine="vllm")


UP = Observed(large=LARGE, large_serves=True)
MADE = Observed(large=LARGE, large_serves=True, lean=LEAN)
PROVING = Observed(large=LARGE, large_serves=True, lean=LEAN, lean_serves=True)
PASSED = Observed(large=LARGE, large_serves=True, lean=LEAN, lean_serves=True, report=report("Routed"))
REFUSED = Observed(large=LARGE, large_serves=True, lean=LEAN, lean_serves=True, report=report("GateFailed"))


@pytest.mark.parametrize(
    ("seen", "job", "served", "routed", "settled", "word"),
    [
        (Observed(), "Large", [], False, False, "PreparingLarge"),
        (Observed(large=LARGE), None, ["Large"], False, False, "StartingLarge"),
        (UP, "Lean", ["Large"], False, False, "Compressing"),
        (MADE, None, ["Large", "Lean"], False, False, "StartingLean"),
        (PROVING, "prove", ["Large", "Lean"], False, False, "Proving"),
        (PASSED, None, ["Large", "Lean"], True, False, "Routing"),
        (REFUSED, None, ["Large"], False, True, "ServingLarge"),
        (Observed(failure=("compress-large", "no")), None, [], False, True, "Failed"),
        (
            Observed(large=LARGE, large_serves=True, failure=("compress-lean", "no")),
            None,
            ["Large"],
            False,
            True,
            "ServingLarge",
        ),
        (
            Observed(large=LARGE, large_serves=True, lean=LEAN, failure=("serve-lean", "no")),
            None,
            ["Large"],
            False,
            True,
            "ServingLarge",
        ),
    ],
    ids=[
        "nothing",
        "large made",
        "large up",
        "lean made",
        "lean up",
        "passed",
        "gate failed",
        "large failed",
        "lean failed",
        "lean crashed",
    ],
)
def test_each_state_has_one_next_thing(
    seen: Observed, job: str | None, served: list[str], routed: bool, settled: bool, word: str
) -> None:
    found = wanted(seen)
    kind = None if found.job is None else found.job.role if isinstance(found.job, CompressPlan) else "prove"
    assert (kind, [s.role for s in found.served], found.policy is not None, found.settled) == (
        job,
        served,
        routed,
        settled,
    )
    assert phase(MODEL, seen) == word


def test_without_a_lean_model_the_large_one_is_all_there_is() -> None:
    found = wanted(UP, NO_LEAN)
    assert found.job is None and found.settled and [s.role for s in found.served] == ["Large"]
    assert phase(NO_LEAN, UP) == "Ready"


def test_suspend_starts_no_job_and_takes_nothing_down() -> None:
    spec = MODEL.spec.model_copy(update={"suspend": True})
    found = wanted(UP, MODEL.model_copy(update={"spec": spec}))
    assert found.job is None and [s.role for s in found.served] == ["Large"]


def test_the_prove_plan_names_both_revisions_and_the_price() -> None:
    plan = wanted(PROVING).job
    assert isinstance(plan, ProvePlan)
    assert (plan.large.name, plan.lean.name) == ("large-aaaaaaaa", "lean-bbbbbbbb")
    assert plan.lean_price is not None and plan.lean_price.usd_per_hour == "0.10"


observations = st.builds(
    Observed,
    large=st.sampled_from([None, LARGE]), lean=st.sampled_from([None, LEAN]), large_serves=st.booleans(), lean_serves=st.booleans(),
    report=st.sampled_from([None, report("Routed"), report("LeanTakesAll"), report("LargeOnly"), report("GateFailed")]),
    failure=st.sampled_from([None, ("compress-lean", "no"), ("prove", "no"), ("serve-lean", "no"), ("serve-large", "no")]),
    routed=st.booleans(), alarms=st.sampled_from([(), ("label-free: is broken",)]),
)  # fmt: skip


@given(observations)
def test_whatever_is_seen_the_large_model_stays_and_traffic_needs_a_proof(seen: Observed) -> None:
    found = wanted(seen)
    roles = [served.role for served in found.served]
    assert ("Large" in roles) == (seen.large is not None)
    if found.policy is not None:
        assert (
            "Lean" in roles and seen.report is not None and seen.report.verdict in ("Routed", "LeanTakesAll")
        )
    if seen.failure is not None:
        assert found.job is None
    settings = router_settings(
        MODEL, found, seen.report, lambda name: f"http://127.0.0.1:1/{name}", 1, key_file
    )
    assert (settings is None) == (seen.large is None)
    if settings is not None and settings.strategy != "AllLarge":
        assert settings.lean is not None and settings.policy == found.policy


@given(observations)
def test_status_is_idempotent_and_ready_never_lies(seen: Observed) -> None:
    status = compute(MODEL, seen, NOW)
    assert compute(MODEL, seen, "2026-01-02T00:00:00Z", status) == status
    conditions = {condition.type: condition for condition in status.conditions}
    if conditions["Ready"].status == "True":
        assert seen.large_serves and seen.routed and seen.failure is None and seen.report is not None
    assert (conditions["Serving"].status == "True") == seen.large_serves
    if seen.failure is not None and seen.report is None:
        assert conditions["Degraded"].message == seen.failure[1]
    if seen.alarms:
        assert conditions["Degraded"].status == "True"
        gate = seen.report is not None and seen.report.verdict in ("LargeOnly", "GateFailed")
        assert (conditions["Degraded"].reason == "PromiseBroken") == (not gate and seen.failure is None)


def test_how_a_promise_is_watched_asks_for_no_new_proof_and_reaches_the_router() -> None:
    routing = MODEL.spec.routing.model_copy(
        update={"monitoring": Monitoring(shadowing="0.05", false_alarms="0.01"), "overrides": "Allowed"}
    )
    watched = MODEL.model_copy(update={"spec": MODEL.spec.model_copy(update={"routing": routing})})
    one, other = wanted(PROVING).job, wanted(PROVING, watched).job
    assert isinstance(one, ProvePlan) and isinstance(other, ProvePlan) and one == other
    settings = router_settings(
        watched, wanted(PASSED), None, lambda name: f"http://127.0.0.1:1/{name}", 1, key_file
    )
    assert settings is not None and settings.overrides
    assert (settings.watching.shadowing, settings.watching.false_alarms) == (0.05, 0.01)


def test_who_may_ask_for_how_much_waits_for_no_proof_and_asks_for_none() -> None:
    """In force at once, even while a generation that is not proven leaves the traffic where it was."""
    routing = MODEL.spec.routing.model_copy(update={"budget": Budget(usd_per_hour="2")})
    limits = TrafficLimits(concurrency=8, queue_timeout="5s", max_body="1Mi", request_timeout="2m")
    changes = {"access": "Keys", "limits": limits, "heartbeat": "15s"}
    router = MODEL.spec.serving.router.model_copy(update=changes)
    serving = MODEL.spec.serving.model_copy(update={"router": router})
    spec = MODEL.spec.model_copy(update={"routing": routing, "serving": serving})
    bounded = MODEL.model_copy(update={"spec": spec})
    assert wanted(PROVING).job == wanted(PROVING, bounded).job
    first = next_traffic(MODEL, None, wanted(PASSED), None, ["lean-bbbbbbbb"])
    assert first is not None and first.budget is None and first.access is None
    unproven = replace(wanted(PASSED), policy=None)
    for draft in (wanted(PASSED), unproven, replace(unproven, served=())):
        after = next_traffic(bounded, first, draft, None, [])
        assert after is not None and after.policy == first.policy and after.generation == 2
        assert after.budget == Budget(usd_per_hour="2") and after.access == "Keys"
        found = after.limits
        assert (found.concurrency, found.queue_timeout, found.max_body_bytes) == (8, 5.0, 2**20)
        assert (found.queue, found.request_timeout, found.heartbeat) == (None, 120.0, 15.0)
        back = next_traffic(MODEL, after, draft, None, [])
        assert back is not None and (back.budget, back.access, back.limits) == (None, None, RouterLimits())


def test_what_counts_as_pressure_is_told_to_the_router_and_asks_for_no_proof() -> None:
    def under(when: Strain) -> LeanModel:
        routing = MODEL.spec.routing.model_copy(
            update={"under_pressure": UnderPressure(retain="0.5", when=when)}
        )
        return MODEL.model_copy(update={"spec": MODEL.spec.model_copy(update={"routing": routing})})

    first, other = under(Strain(concurrency=8)), under(Strain(budget="0.5"))
    assert wanted(PROVING, first).job == wanted(PROVING, other).job != wanted(PROVING).job
    settings = router_settings(
        first, wanted(PASSED, first), None, lambda name: f"http://127.0.0.1:1/{name}", 1, key_file
    )
    assert settings is not None and settings.pressure == Strain(concurrency=8)
    after = next_traffic(other, settings, wanted(PASSED, other), None, [])
    assert after is not None and after.pressure == Strain(budget="0.5") and after.policy == settings.policy


def test_without_bounds_the_settings_are_such_as_an_older_router_can_read() -> None:
    settings = router_settings(
        MODEL, wanted(PASSED), None, lambda name: f"http://127.0.0.1:1/{name}", 1, key_file
    )
    assert settings is not None
    written = json.loads(settings.to_json())
    assert not {"budget", "access", "pressure"} & set(written)
    later = {
        "concurrency",
        "queue",
        "queueTimeout",
        "bodyTimeout",
        "sendTimeout",
        "requestTimeout",
        "heartbeat",
    }
    assert not later & set(written["limits"])


class Health(BaseHTTPRequestHandler):
    content: ClassVar[bytes] = b""

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


ALARM = {"policy": "sha256:1", "alarms": {"label-free": "is broken"}}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"broken": ALARM}, Broken(**ALARM)),
        ({"broken": {"policy": ""}}, Broken(policy="")),
        ({}, None), ([], None), ({"broken": {"alarms": 1}}, None),
    ],
)  # fmt: skip
def test_what_is_broken_is_read_from_the_routers_health(content: object, found: Broken | None) -> None:
    Health.content = json.dumps(content).encode()
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert probe.broken(f"http://127.0.0.1:{server.server_port}") == found
        thread.join()
    assert probe.broken(f"http://127.0.0.1:{server.server_port}") is None


def test_a_broken_promise_stays_on_record_while_its_policy_is_in_force() -> None:
    """Whatever pod comes next reads it in its settings; another policy begins with a clean record."""
    first = next_traffic(MODEL, None, wanted(PASSED), None, ["lean-bbbbbbbb"])
    assert first is not None and first.policy is not None and first.broken is None
    seen = Broken(policy=first.policy.name, alarms={"label-free": "is broken"})
    marked = next_traffic(MODEL, first, wanted(PASSED), None, ["lean-bbbbbbbb"], seen)
    assert marked is not None and marked.broken == seen and marked.generation == first.generation + 1
    for later in (
        None,
        seen,
        Broken(policy=""),
    ):  # a router that forgot, that says it again, that says nothing
        assert next_traffic(MODEL, marked, wanted(PASSED), None, ["lean-bbbbbbbb"], later) == marked
    assert alarm_words(marked) == ("label-free: is broken",)
    other = marked.policy.model_copy(update={"seed": 7, "digest": ""}).sealed() if marked.policy else None
    renewed = replace(wanted(PASSED), policy=other)
    after = next_traffic(MODEL, marked, renewed, None, ["lean-bbbbbbbb"], seen)
    assert after is not None and after.policy == other and after.broken is None and alarm_words(after) == ()
