"""Calibration of a whole router: the strategy by its honest cost, certificates for all requests or for each group.

`calibrate` gives the same for a cascade alone, as a policy of version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leanmodel_api.errors import InputError, one
from leanmodel_api.policy import Aggregate, Method, PartSizes, Record, Scope
from leanmodel_api.routing_policy import GroupRule, RoutingEvaluation, RoutingPolicy, SecondPoint, Strategy
from leanmodel_api.scores import ScoreReference
from leanmodel_routing.bounds import label_free
from leanmodel_routing.calibration import Prepared, Terms, certify_walk, document, prepare, same_strata
from leanmodel_routing.cases import Spend
from leanmodel_routing.evaluate import evaluate_table
from leanmodel_routing.groups import WalkTaken, group_rule, group_rules, joint_certificate, plan_groups
from leanmodel_routing.parts import Parts
from leanmodel_routing.policies import STRATEGIES, Aim, Way, choose_way
from leanmodel_routing.policies.route import route_table
from leanmodel_routing.policies.ways import check_price
from leanmodel_routing.second import PROMISES, Lower, second_groups, second_point
from leanmodel_routing.threads import single_threaded


@dataclass(frozen=True)
class RoutingResult:
    """A sealed policy of version 2, its evaluation on the report part, and notes on the input."""

    policy: RoutingPolicy
    evaluation: RoutingEvaluation
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """What `leanmodel calibrate` writes: the evaluation's keys, and the policy under `policy`; plain JSON."""
        return document(self.policy, self.evaluation, self.notes)


@single_threaded
def calibrate_routing(
    records: Sequence[Record] = (),
    retain: float = 0.95,
    confidence: float = 0.9,
    seed: int = 0,
    *,
    parts: Parts | None = None,
    metric: str = "quality",
    aggregate: Aggregate | None = None,
    scope: Scope | None = None,
    method: Method | None = None,
    looks: int = 1,
    strategies: Sequence[Strategy] = tuple(STRATEGIES),
    usd_per_second: float = 0.0,
    per_group: bool = False,
    under_pressure: float | None = None,
) -> RoutingResult:
    """Find the cheapest policy of any strategy that keeps `quality ≥ retain · large quality`.

    Arguments and errors as `calibrate`'s, and: `strategies` to choose among, on the fit part alone, by what their
    calls cost (cascade: c_lean + p·c_large; direct: (1 - p)·c_lean + p·c_large) plus `usd_per_second` for each
    second of latency. `per_group`: the promise holds for each group of the records, all of them together wrong with
    chance at most 1 - `confidence`; requests of small and unknown groups go to the large model. `under_pressure`: a
    second `retain`, below the first, certified beside it; both together are wrong with chance at most 1 - `confidence`.

    Raises InputError also where no named strategy can be learnt, where a price of latency meets records without
    costs or latencies, and where `per_group` meets records without a group.
    """
    given = prepare(
        records,
        retain,
        confidence,
        seed,
        parts=parts,
        metric=metric,
        aggregate=aggregate,
        scope=scope,
        looks=looks,
    )
    for table in (given.fit, given.certify, given.report):
        check_price(table, usd_per_second)
    _check(given, strategies, retain, under_pressure, per_group=per_group)
    policy = policy_of(
        given, retain, confidence, seed, method, looks, strategies, usd_per_second,
        per_group=per_group, under_pressure=under_pressure,
    )  # fmt: skip
    evaluation = evaluate_table(policy, given.report, part="report")
    assert isinstance(evaluation, RoutingEvaluation)
    policy = _measured(policy, given, evaluation)
    return RoutingResult(
        policy, evaluation.model_copy(update={"certificate": policy.certificate}), given.notes
    )


@single_threaded
def policy_of(
    given: Prepared,
    retain: float,
    confidence: float,
    seed: int,
    method: Method | None,
    looks: int,
    strategies: Sequence[Strategy],
    usd_per_second: float,
    *,
    per_group: bool,
    under_pressure: float | None = None,
) -> RoutingPolicy:
    """The policy as chosen on fit and certified on certify, not yet measured; the report part is only counted.

    Arguments as `calibrate_routing`'s, which measures it on the report part and seals it.
    """
    fit, certify = given.fit, same_strata(given.fit, given.certify)
    risk = (1.0 - confidence) / looks / (1 if under_pressure is None else PROMISES)
    plan = plan_groups(certify, retain, risk) if per_group else None
    terms = Terms(retain, confidence, risk, looks, seed)
    each = risk if plan is None else plan.risk
    choice = choose_way(Aim(fit, len(certify), retain, each, seed, method, usd_per_second), strategies)
    way, shown = choice.way, choice.shown or choice.way
    spend = Spend(way.strategy, usd_per_second)
    sizes = PartSizes(fit=len(fit), certify=len(certify), report=len(given.report))
    scores = way.scores(certify)
    rules: dict[str, GroupRule] = {}
    second = None
    lower = None
    if under_pressure is not None:
        lower = Lower(way, replace(terms, retain=under_pressure, risk=each), spend)
    if plan is None:
        found = certify_walk(way.walk, way.method, certify, scores, terms, sizes, spend)
        certificate = found.certificate
        rule = group_rule(way, way.walk, found.decision, certificate)
        if lower is not None:
            second = second_point(lower, WalkTaken(way.walk, certify, scores, sizes, found))
    else:
        rules, tested = group_rules(way, plan, fit, certify, given.report, scores, terms, spend)
        risks = len(plan.tested)
        certificate = joint_certificate(rules, plan.small, risks, way, certify, terms, sizes)
        if lower is not None:
            second = second_groups(lower, rules, tested, plan.small, certify, sizes, risks)
        rule = GroupRule(
            kind="all-large",
            ask_at=way.ask_at,
            threshold=1.0,
            certificate=certificate,
            expected_large_share=1.0,
        )
    return RoutingPolicy(
        kind=rule.kind,
        predictor=None if shown.after is None else shown.after.predictor,
        threshold=rule.threshold,
        before=None if shown.before is None else shown.before.predictor,
        ask_at=shown.ask_at if rule.kind in ("all-large", "all-lean") else rule.ask_at,
        groups=rules,
        considered=choice.considered,
        scope=given.scope,
        certificate=certificate,
        expected_large_share=rule.expected_large_share,
        scores=_reference(way, scores, given, [rule, *rules.values(), *second_rules(second)]),
        usd_per_second=usd_per_second,
        under_pressure=second,
        seed=seed,
    )


def second_rules(second: SecondPoint | None) -> list[SecondPoint | GroupRule]:
    """Every rule of the second point."""
    return [] if second is None else [second, *second.groups.values()]


def _reference(
    way: Way, scores: np.ndarray, given: Prepared, rules: Sequence[GroupRule | SecondPoint]
) -> ScoreReference | None:
    """Scores of the certify and report parts, which no predictor has seen; None where nothing is scored."""
    if all(rule.kind in ("all-large", "all-lean") for rule in rules):
        return None
    return ScoreReference.of(np.concatenate([scores, way.scores(given.report)]).tolist())


def _measured(policy: RoutingPolicy, given: Prepared, evaluation: RoutingEvaluation) -> RoutingPolicy:
    """The policy with what the report part shows of it, sealed."""
    relaxed, second = policy.relaxed(), policy.under_pressure
    if second is not None and relaxed is not None and evaluation.under_pressure is not None:
        shown = evaluation.under_pressure
        second = second.model_copy(
            update={
                "certificate": second.certificate.model_copy(update={"label_free": shown.label_free}),
                "groups": _measured_groups(relaxed, given),
                "expected_large_share": shown.large_share,
            }
        )
    policy = policy.model_copy(
        update={
            "certificate": policy.certificate.model_copy(update={"label_free": evaluation.label_free}),
            "groups": _measured_groups(policy, given),
            "expected_large_share": evaluation.large_share,
            "curve": evaluation.curve,
            "under_pressure": second,
        }
    )
    return policy.model_copy(update={"digest": policy.computed_digest()})


def _measured_groups(policy: RoutingPolicy, given: Prepared) -> dict[str, GroupRule]:
    routed = route_table(policy, given.report)
    rules = {}
    for name, rule in policy.groups.items():
        rows = given.report.groups.get(name)
        found = {}
        if rows is not None:
            accept = routed.accepted[rows]
            bound = label_free(given.report.take(rows), accept, rule.certificate.confidence, "report")
            found = {
                "expected_large_share": float(1.0 - accept.mean()),
                "certificate": rule.certificate.model_copy(update={"label_free": bound}),
            }
        rules[name] = rule.model_copy(update=found)
    return rules


def _check(
    given: Prepared,
    strategies: Sequence[Strategy],
    retain: float,
    under_pressure: float | None,
    *,
    per_group: bool,
) -> None:
    if under_pressure is not None and not 0.0 < under_pressure < retain:
        raise one(
            InputError, "under_pressure", f"found {under_pressure}",
            f"write a fraction above 0 and below the first promise, {retain:g}",
        )  # fmt: skip
    unknown = [name for name in strategies if name not in STRATEGIES]
    if unknown:
        raise one(InputError, "strategies", f"found {unknown[0]!r}", f"name some of {', '.join(STRATEGIES)}")
    if per_group and not given.certify.groups:
        raise one(
            InputError, "records.group", "no record has one, but the promise is per group",
            "give each record its group, or leave out per_group",
        )  # fmt: skip
