"""Two promises on one certify part: both right at once as often as stated, and the second never the stricter one."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_making import make_pool

from leanmodel_api.errors import InputError
from leanmodel_api.policy import PartSizes, Record
from leanmodel_api.routing_policy import RoutingPolicy
from leanmodel_routing import evaluate_policy
from leanmodel_routing.calibration import Terms, certify_walk
from leanmodel_routing.cases import Spend
from leanmodel_routing.groups import WalkTaken, group_rule
from leanmodel_routing.policies import Aim, choose_way
from leanmodel_routing.policies.route import route_table
from leanmodel_routing.policies.ways import Way
from leanmodel_routing.routing_calibration import calibrate_routing
from leanmodel_routing.second import PROMISES, Lower, second_walk
from leanmodel_routing.table import Table
from leanmodel_routing.walk import Walk

RISK, RECORDS = 0.1, 400
SPEND = Spend("cascade")


def records(n, seed=0, groups=None, **more):
    """Records whose log-probs tell a good deal of whether the lean answer is right."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(n):
        sure = rng.random()
        right = float(rng.random() < 0.3 + 0.69 * sure)
        found.append(
            Record(
                prompt=f"question {index}", lean_quality=right, large_quality=float(rng.random() < 0.97),
                lean_logprobs=(-1.5 * (1 - sure) - 0.001, -0.01), lean_cost=0.001, large_cost=0.01,
                lean_answer="yes" if right else "no", large_answer="yes",
                group=groups[index % len(groups)] if groups else None, **more,
            )
        )  # fmt: skip
    return found


def terms(retain, risk=RISK / PROMISES):
    return Terms(retain, 1 - RISK, risk, 1, 0)


def both(way, part, scores, retain, lower, risk=RISK / PROMISES):
    """Certify both promises as the calibration does: the rules of both, and what each walk has shown."""
    sizes = PartSizes(fit=1, certify=len(part), report=0)
    first = certify_walk(way.walk, way.method, part, scores, terms(retain, risk), sizes, SPEND)
    tested = WalkTaken(way.walk, part, scores, sizes, first)
    second = Lower(way, terms(lower, risk), SPEND).rule(tested)
    return group_rule(way, way.walk, first.decision, first.certificate), second, first


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ltt-exact", "ltt-betting", "ltt-target-betting"])
def test_either_promise_is_broken_no_more_often_than_the_one_risk(method):
    """Fit once, certify on 300 fresh samples, with promises at which thresholds of the walk are at their very edge."""
    pool, draws = make_pool(20_000, seed=1), 300
    rng = np.random.default_rng(2)
    retain, lower = 0.96, 0.88
    way = choose_way(Aim(pool.draw(1500, rng), RECORDS, retain, RISK / 2, 0, method, 0.0), ("cascade",)).way
    every = way.scores(pool.table)
    broken = {"first": 0, "second": 0, "either": 0}
    cheaper = certified = 0
    for _ in range(draws):
        index = rng.choice(len(every), size=RECORDS, replace=False)
        part = fresh(pool, index, rng)
        first, second, _ = both(way, part, every[index], retain, lower)
        wrong = [breaks(pool, every, rule, least) for rule, least in ((first, retain), (second, lower))]
        for name, one in zip(broken, (*wrong, any(wrong)), strict=True):
            broken[name] += one
        certified += second.certificate.certified
        cheaper += second.threshold < first.threshold
    assert broken["either"] / draws <= RISK + 2.33 * math.sqrt(RISK * (1 - RISK) / draws)
    for one in ("first", "second"):
        half = RISK / PROMISES
        assert broken[one] / draws <= half + 2.33 * math.sqrt(half * (1 - half) / draws)
    # It is not bought by giving up: the second promise is certified, and saves large calls.
    assert certified >= 0.95 * draws and cheaper >= 0.95 * draws


def at_the_edge(risk, draws=600, size=700):
    """Shares of draws in which the first, the second, and either promise is certified where it is just broken.

    Two thresholds. Surely answered requests are wrong in 20%, the others in 60%: accepting the sure half loses just more
    than the first promise allows, accepting all just more than the second does. So each certificate is wrong as often as its
    own test errs at the very edge.
    """
    retain, lower = 0.9 + 1e-6, 0.6 + 1e-6
    part = Table.of(
        [Record(prompt=f"{index}", lean_quality=1.0, large_quality=1.0, lean_cost=0.001, large_cost=0.01) for index in range(size)]
    )  # fmt: skip
    walk = Walk(np.array([0.5, 0.0]), 0, part.take(np.arange(0)), np.zeros(0))
    way = Way("cascade", None, 0.0, None, walk, "ltt-exact")
    rng, wrong = np.random.default_rng(0), np.zeros((draws, 2), dtype=bool)
    for draw in range(draws):
        sure = rng.random(size) < 0.5
        scores = np.where(sure, 0.9, 0.1)
        found = replace(part, lean=(rng.random(size) >= np.where(sure, 0.2, 0.6)).astype(float))
        first, second, _ = both(way, found, scores, retain, lower, risk)
        wrong[draw] = first.kind != "all-large", second.kind == "all-lean"
    return wrong[:, 0].mean(), wrong[:, 1].mean(), wrong.any(axis=1).mean()


@pytest.mark.slow
def test_at_the_very_edge_of_both_the_risk_holds_and_without_the_correction_it_does_not():
    first, second, either = at_the_edge(RISK / PROMISES)
    slack = 2.33 * math.sqrt(RISK * (1 - RISK) / 600)
    assert either <= RISK + slack and min(first, second) > RISK / PROMISES / 3
    *_, naive = at_the_edge(RISK)
    assert naive > RISK + slack


def fresh(pool, index, rng):
    table = pool.table.take(index)
    lean = (rng.random(len(index)) < pool.lean_chance[index]).astype(float)
    large = (rng.random(len(index)) < pool.large_chance[index]).astype(float)
    return Table(**{**vars(table), "lean": lean, "large": large})


def breaks(pool, every, rule, least):
    accept = np.zeros(len(every), dtype=bool) if rule.kind == "all-large" else every >= rule.threshold
    quality, large = pool.true_quality(accept)
    return quality < least * large - 1e-12


@given(
    st.integers(0, 10_000), st.integers(30, 400), st.floats(0.6, 0.99), st.floats(0.05, 0.98),
    st.sampled_from(["ltt-exact", "ltt-betting", "ltt-target-betting"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_the_second_is_never_the_stricter_one_and_each_of_its_steps_was_tested(
    seed, size, retain, part, method
):
    lower = retain * part
    drawn = Table.of(records(size + 200, seed))
    fit, certify = drawn.take(np.arange(200)), drawn.take(np.arange(200, size + 200))
    way = choose_way(Aim(fit, size, retain, RISK / 2, seed, method, 0.0), ("cascade",)).way
    scores = way.scores(certify)
    first, second, shown = both(way, certify, scores, retain, lower)
    order = {"all-large": 1.0, "all-lean": 0.0}
    assert order.get(second.kind, second.threshold) <= order.get(first.kind, first.threshold)
    walk = second_walk(way.walk, shown, lower)
    # Nothing before the walk's own beginning, nothing twice, and nothing that the first had not reached is passed over.
    assert walk.start >= way.walk.start and all(step < walk.start for step in shown.steps)
    sizes = PartSizes(fit=1, certify=size, report=0)
    further = certify_walk(walk, way.method, certify, scores, terms(lower), sizes, SPEND, before=shown)
    assert list(further.steps)[: len(shown.steps)] == list(shown.steps)
    assert all(p_value <= RISK / PROMISES for p_value in further.steps.values())


@pytest.fixture(scope="module")
def found():
    return calibrate_routing(records(3000), 0.95, strategies=("cascade",), under_pressure=0.8)


def test_both_points_are_in_the_policy_and_on_the_report_part(found):
    policy, evaluation = found.policy, found.evaluation
    relaxed = policy.relaxed()
    assert relaxed is not None and relaxed.threshold < policy.threshold and relaxed.under_pressure is None
    assert relaxed.predictor == policy.predictor and relaxed.scope == policy.scope
    assert (policy.certificate.retain, relaxed.certificate.retain) == (0.95, 0.8)
    assert policy.certificate.confidence == relaxed.certificate.confidence == 0.9
    assert max(policy.certificate.p_value, relaxed.certificate.p_value) <= 0.05
    shown = evaluation.under_pressure
    assert shown is not None and shown.large_share < evaluation.large_share and shown.promise_held
    assert shown.cost < evaluation.cost
    assert relaxed.certificate.label_free.upper > policy.certificate.label_free.upper
    assert relaxed.expected_large_share == shown.large_share
    again = RoutingPolicy.model_validate_json(json.dumps(found.document()["policy"]))
    assert again == policy and again.relaxed() == relaxed and again.name != relaxed.name


def test_the_relaxed_policy_routes_as_its_figures_say(found):
    listed = records(500, 9)
    relaxed = found.policy.relaxed()
    routed = route_table(relaxed, Table.of(listed))
    shown = evaluate_policy(found.policy, listed).under_pressure
    assert shown.large_share == pytest.approx(1 - routed.accepted.mean())
    assert shown == evaluate_policy(found.policy, listed).under_pressure


def test_without_a_second_promise_nothing_is_paid_and_old_policies_keep_their_digest():
    one = calibrate_routing(records(1500), 0.95, strategies=("cascade",)).policy
    assert one.under_pressure is None and one.relaxed() is None
    content = json.loads(one.model_dump_json())
    del content["under_pressure"]  # as a version before it has written the policy
    assert RoutingPolicy.model_validate(content).digest == one.digest
    changed = {**json.loads(one.model_dump_json()), "under_pressure": {**_second(one)}}
    with pytest.raises(ValueError, match="digest"):
        RoutingPolicy.model_validate(changed)


def _second(policy):
    content = json.loads(policy.model_dump_json())
    return {name: content[name] for name in ("kind", "threshold", "certificate", "expected_large_share")}


def test_a_second_that_cannot_be_certified_stays_with_the_first():
    few = calibrate_routing(records(60), 0.99, strategies=("cascade",), under_pressure=0.98).policy
    second = few.under_pressure
    assert not second.certificate.certified and second.kind == "all-large" and few.relaxed() is None
    assert "the first promise stays in force" in second.certificate.message
    assert second.certificate.needed > 0
    right = [record.model_copy(update={"lean_quality": 1.0}) for record in records(1500)]
    same = calibrate_routing(right, 0.9, strategies=("cascade",), under_pressure=0.8)
    assert same.policy.kind == "all-lean" and same.policy.relaxed() is None
    assert "under pressure nothing changes" in same.policy.under_pressure.certificate.message
    assert same.evaluation.under_pressure is None


def test_a_second_where_the_first_is_not_certified():
    """The large model alone keeps the first promise; under pressure the pair keeps the second."""
    worse = [
        record.model_copy(update={"lean_quality": float(index % 4 > 0)})
        for index, record in enumerate(records(2000))
    ]
    found = calibrate_routing(worse, 0.999, strategies=("cascade",), under_pressure=0.6).policy
    relaxed = found.relaxed()
    assert found.kind == "all-large" and relaxed is not None and relaxed.kind != "all-large"
    assert found.scores is not None or relaxed.kind == "all-lean"


def test_groups_have_a_second_rule_each():
    given_ = records(4000, groups=["a", "b", "c"]) + records(12, 5, groups=["tiny"])
    result = calibrate_routing(given_, 0.95, strategies=("cascade",), under_pressure=0.8, per_group=True)
    policy, relaxed = result.policy, result.policy.relaxed()
    assert relaxed is not None and set(relaxed.groups) == set(policy.groups) == {"a", "b", "c", "tiny"}
    assert relaxed.groups["tiny"].kind == policy.groups["tiny"].kind == "all-large"
    for name in "abc":
        assert relaxed.groups[name].threshold < policy.groups[name].threshold
        assert relaxed.groups[name].certificate.p_value <= RISK / PROMISES / 3
        assert relaxed.groups[name].expected_large_share < policy.groups[name].expected_large_share
    assert "3 of 4 groups" in relaxed.certificate.message


@pytest.mark.parametrize("second", [0.95, 0.99, 0.0, -1.0])
def test_a_second_promise_is_below_the_first(second):
    with pytest.raises(InputError, match="under_pressure"):
        calibrate_routing(records(200), 0.95, under_pressure=second)
