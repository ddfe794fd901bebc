"""From judged records to the manifest's strategy: what the fit part may choose among, and what a fixed route promises."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from test_evaluation_job import plan

from leanmodel_api.errors import InputError
from leanmodel_api.plan import ProvePlan
from leanmodel_api.policy import Record, Scope
from leanmodel_api.pressure import Strain, UnderPressure
from leanmodel_evaluation.calibrated import Calibrated, calibrated
from leanmodel_evaluation.judged import routes
from leanmodel_evaluation.report.groups import groups
from leanmodel_evaluation.report.second import level, second_promise, under_pressure
from leanmodel_evaluation.verdict import decide, overall, second_words
from leanmodel_routing.decide import Decider
from leanmodel_routing.monitors import Watch


def records(n: int, seed: int) -> list[Record]:
    """The word cash shows what the lean model cannot do, and so do its log-probs."""
    lots = random.Random(seed)
    found = []
    for index in range(n):
        hard = lots.random() < 0.25
        right = not hard or lots.random() < 0.05
        words = lots.sample(["see", "you", "soon", "lunch", "now", "later"], 3) + (["cash"] if hard else [])
        found.append(
            Record(
                prompt=f"{' '.join(words)} {index}",
                lean_quality=float(right),
                large_quality=float(lots.random() < 0.98),
                lean_answer="a" if right else "b",
                large_answer="a",
                lean_logprobs=(-0.5 if hard else -0.01 * lots.random(),),
                lean_cost=5.0,
                large_cost=10.0,
            )  # fmt: skip
        )
    return found


def found_by(strategy: str, fit: int = 450, **routing: Any) -> tuple[ProvePlan, Calibrated, list[Record]]:
    proof = ProvePlan.model_validate(
        plan(routing={**plan()["routing"], "strategy": strategy, **routing}, baseDir=".")
    )
    parts = {"fit": records(fit, 1), "certify": records(350, 2), "report": records(200, 3)}
    return proof, calibrated(proof, Scope(metric="ExactMatch"), parts, look=1), parts["report"]


@pytest.mark.parametrize(
    ("strategy", "considered", "kinds"),
    [
        ("Predictive", {"predictive"}, {"predictive"}),
        ("Cascade", {"cascade"}, {"cascade"}),
        # The fit part may find that the cut before the lean model does not pay.
        ("Combined", {"cascade", "combined"}, {"cascade", "combined"}),
        ("Auto", {"fixed", "predictive", "cascade", "combined"}, {"predictive", "combined"}),
    ],
)
def test_the_strategy_says_what_the_fit_part_may_choose_among(
    strategy: str, considered: set[str], kinds: set[str]
) -> None:
    _, found, report = found_by(strategy)
    assert {item.strategy for item in found.policy.considered} == considered
    assert found.policy.kind in kinds and found.policy.certificate.certified
    routed = routes(found.policy, report)
    assert 1 - found.evaluation.large_share == pytest.approx(1 - routed.escalated.mean())
    assert ((routed.asked | routed.escalated).all()) and (
        routed.asked.all() == (found.policy.kind == "cascade")
    )


@pytest.mark.parametrize("model", ["Lean", "Large"])
def test_a_fixed_route_promises_nothing_and_leaves_nothing_to_watch(model: str) -> None:
    proof, found, report = found_by("Fixed", fixed=model)
    policy = found.policy
    assert policy.kind == f"all-{model.lower()}" and not policy.certificate.certified
    assert policy.digest == policy.computed_digest()
    assert found.evaluation.large_share == float(model == "Large") == routes(policy, report).escalated.mean()
    assert not Watch.of(policy, 0.02, 0.05).names()
    verdict, _ = decide([], policy.kind, policy.certificate, proof.routing)
    assert verdict == ("LeanTakesAll" if model == "Lean" else "LargeOnly")


def report_of(found: Calibrated) -> Any:
    return SimpleNamespace(policy=found.policy, evaluation=found.evaluation)


def test_a_second_promise_is_certified_beside_the_first_and_shown() -> None:
    when = {"concurrency": 4}
    proof, found, report = found_by("Cascade", underPressure={"retain": "0.6", "when": when})
    relaxed = found.policy.relaxed()
    assert relaxed is not None and relaxed.certificate.retain == 0.6 and found.policy.certificate.certified
    shown = second_promise(report_of(found)).html
    assert "Under pressure" in shown and "held against 0.05" in shown and "at least 60%" in shown
    verdict, reason = decide(
        [], overall(found.policy), found.policy.certificate, proof.routing, second_words(found.policy)
    )
    assert verdict == "Routed" and "Under pressure: " in reason
    assert level(found.policy) == pytest.approx(0.05)
    (row,) = under_pressure(found.evaluation)
    assert row[1] == routes(relaxed, report).escalated.mean() < found.evaluation.large_share
    # Another cause of pressure asks for no new proof, another promise does.
    other = proof.routing.model_copy(
        update={"under_pressure": UnderPressure(retain="0.6", when=Strain(queue=2))}
    )
    assert other.proven() == proof.routing.proven() != found_by("Cascade")[0].routing.proven()


def test_a_second_promise_that_is_not_certified_is_said_to_change_nothing() -> None:
    _, found, _ = found_by("Fixed", underPressure={"retain": "0.6", "when": {"queue": 1}}, fixed="Lean")
    assert found.policy.under_pressure is None and second_promise(report_of(found)).html == ""
    parts = {"fit": records(450, 1), "certify": records(6, 2), "report": records(50, 3)}
    given = {**plan()["routing"], "underPressure": {"retain": "0.8", "when": {"queue": 1}}}
    proof = ProvePlan.model_validate(plan(routing=given, baseDir="."))
    few = calibrated(proof, Scope(metric="ExactMatch"), parts, look=1)
    shown = second_promise(report_of(few)).html
    assert "under pressure nothing changes" in shown and "More records needed" in shown
    assert second_words(few.policy) == "" and under_pressure(few.evaluation) == []


def test_large_alone_without_pressure_is_no_reason_to_leave_the_lean_model_out() -> None:
    proof, found, _ = found_by(
        "Cascade",
        promise={"retain": "0.9999", "risk": "0.1"},
        underPressure={"retain": "0.6", "when": {"queue": 1}},
    )
    assert found.policy.kind == "all-large" and second_words(found.policy)
    certificate = found.policy.certificate
    assert decide([], "all-large", certificate, proof.routing, second_words(found.policy))[0] == "Routed"
    assert decide([], "all-large", certificate, proof.routing)[0] == "LargeOnly"


def test_a_prompt_that_cannot_be_learnt_names_the_field_and_how_much_it_takes() -> None:
    with pytest.raises(InputError) as refused:
        found_by("Predictive", fit=100)
    assert "spec.routing.strategy: found Predictive" in str(refused.value) and "at least" in str(
        refused.value
    )


def test_a_data_set_with_groups_gets_a_promise_for_each() -> None:
    def grouped(n: int, seed: int) -> list[Record]:
        return [
            r.model_copy(update={"group": "money" if "cash" in str(r.prompt) else "chat"})
            for r in records(n, seed)
        ]

    data = {**plan()["dataSet"], "group": "{topic}"}
    proof = ProvePlan.model_validate(plan(dataSet=data, baseDir="."))
    parts = {"fit": grouped(450, 1), "certify": grouped(700, 2), "report": grouped(300, 3)}
    found = calibrated(proof, Scope(metric="ExactMatch"), parts, look=1)
    rules = {name: rule.kind for name, rule in found.policy.groups.items()}
    assert rules["chat"] != "all-large" and rules["money"] == "all-large" and found.policy.kind == "all-large"
    verdict, _ = decide([], overall(found.policy), found.policy.certificate, proof.routing)
    assert verdict == "Routed" and Decider(found.policy).asks_lean
    assert found.evaluation.groups["money"].large_share == 1.0 > found.evaluation.groups["chat"].large_share
    report: Any = SimpleNamespace(policy=found.policy, evaluation=found.evaluation)
    told = groups(report).html
    assert "money" in told and "all-large" in told


def test_waiting_has_a_price_where_the_manifest_says_so() -> None:
    """A cascade waits for two models: where seconds are dear, the large one at once is the cheaper way."""
    slow = [r.model_copy(update={"lean_latency": 5.0, "large_latency": 1.0}) for r in records(450, 1)]
    kinds = {}
    for price in ("0", "100"):
        routing = {**plan()["routing"], "strategy": "Cascade", "usdPerSecond": price}
        proof = ProvePlan.model_validate(plan(routing=routing, baseDir="."))
        parts = {"fit": slow, "certify": slow[:350], "report": slow[:200]}
        kinds[price] = calibrated(proof, Scope(metric="ExactMatch"), parts, look=1).policy.kind
    assert kinds == {"0": "cascade", "100": "all-large"}
