"""A promise for each group: corrected for their number, and none for a group that is too small."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_making import make_pool

from leanmodel_api.policy import Record
from leanmodel_routing import Decider, evaluate_policy
from leanmodel_routing.calibration import Terms
from leanmodel_routing.cases import Spend
from leanmodel_routing.groups import fewest, group_rules, plan_groups
from leanmodel_routing.monitors import Watch
from leanmodel_routing.policies import Aim, choose_way
from leanmodel_routing.policies.route import route_table
from leanmodel_routing.routing_calibration import calibrate_routing
from leanmodel_routing.table import Table

RETAIN, RISK = 0.95, 0.1


def grouped(n, seed, groups):
    """n records; group `weak` has a lean model that is right half as often."""
    rng = np.random.default_rng(seed)
    pool = make_pool(n, seed)
    names = rng.choice(list(groups), size=n, p=list(groups.values()))
    lean = np.where(names == "weak", 0.5 * pool.lean_chance, pool.lean_chance)
    right = (rng.random(n) < lean).astype(float)
    records = [
        record.model_copy(
            update={
                "group": str(name),
                "lean_quality": quality,
                "lean_answer": record.prompt,
                "large_answer": record.prompt if quality else "other",
            }
        )
        for record, name, quality in zip(pool.table.records, names, right, strict=True)
    ]
    return records, lean, pool.large_chance


@pytest.fixture(scope="module")
def result():
    records, _, _ = grouped(4000, 1, {"faq": 0.6, "legal": 0.25, "weak": 0.14, "rare": 0.01})
    return calibrate_routing(records, RETAIN, 1 - RISK, strategies=("cascade",), per_group=True)


def test_each_group_has_its_rule_and_small_ones_go_large(result):
    rules = result.policy.groups
    assert set(rules) == {"faq", "legal", "weak", "rare"}
    assert rules["faq"].kind == rules["legal"].kind == "cascade"
    assert rules["weak"].expected_large_share > rules["faq"].expected_large_share + 0.1
    rare = rules["rare"].certificate
    assert (rules["rare"].kind, rare.outcome, rare.certified) == ("all-large", "too-few-records", False)
    assert rare.needed > 0 and f"at least {rare.needed} more" in rare.message and "'rare'" in rare.message
    kept = [rule.certificate for rule in rules.values() if rule.certificate.certified]
    assert all(certificate.p_value <= RISK / 3 for certificate in kept)  # three groups share the risk
    assert result.policy.certificate.p_value <= RISK
    assert f"{len(kept)} of 4 groups" in result.policy.certificate.message


def test_the_router_follows_the_group_and_sends_unknown_ones_large(result):
    records, _, _ = grouped(300, 5, {"faq": 0.5, "legal": 0.2, "rare": 0.2, "new": 0.1})
    routed, decider = route_table(result.policy, Table.of(records)), Decider(result.policy)
    for row, record in enumerate(records):
        first = decider.first(record.prompt_text, record.group)
        kept = first.route == "lean"
        if first.route == "try":
            score = decider.confidence(
                record.lean_logprobs, answer=record.lean_answer, prompt=record.prompt_text
            )
            kept = decider.accept(score, record.group)
        assert kept == routed.accepted[row]
        assert (first.route != "large") == routed.asked[row]
        if record.group in ("rare", "new"):
            assert first.route == "large"
    assert 20 < routed.accepted.sum() < 250
    assert decider.first("x").route == "large" and decider.needs_logprobs


def test_groups_are_measured_and_watched_apart(result):
    records, _, _ = grouped(600, 6, {"faq": 0.7, "legal": 0.3})
    found = evaluate_policy(result.policy, records)
    assert set(found.groups) == {"faq", "legal"} and 0 < found.large_share < 1
    watch = Watch.of(result.policy, 0.02, 0.06)
    kept = {name for name, rule in result.policy.groups.items() if rule.certificate.certified}
    assert set(watch.label_free) == kept
    assert {monitor.level for monitor in watch.label_free.values()} == {0.06 / (len(kept) + 1)}


def test_a_promise_to_any_group_is_broken_no_more_often_than_stated():
    """Fit once, certify on 60 fresh samples: any broken group counts."""
    shares = {"a": 0.5, "weak": 0.3, "b": 0.17, "tiny": 0.03}
    draws, size = 60, 900
    records, lean, large = grouped(9000, 2, shares)
    pool, names = Table.of(records), np.array([record.group for record in records])
    rng = np.random.default_rng(3)
    fit = fresh(pool, rng.permutation(len(pool))[:1200], lean, large, rng)
    way = choose_way(Aim(fit, size, RETAIN, RISK / 3, 0, None, 0.0), ("cascade",)).way
    every, terms, spend = way.scores(pool), Terms(RETAIN, 1 - RISK, RISK, 1, 0), Spend("cascade")
    broken = certified = 0
    for _ in range(draws):
        index = rng.choice(len(pool), size=size, replace=False)
        certify = fresh(pool, index, lean, large, rng)
        plan = plan_groups(certify, RETAIN, RISK)
        rules, _ = group_rules(way, plan, fit, certify, fit, every[index], terms, spend)
        bad = False
        for name, rule in rules.items():
            of, accept = names == name, every >= rule.threshold
            if rule.kind == "all-large":
                continue
            certified += 1
            quality = np.where(accept, lean, large)[of].mean()
            bad |= bool(quality < RETAIN * large[of].mean() - 1e-12)
        broken += bad
    assert broken / draws <= RISK + 2.33 * math.sqrt(RISK * (1 - RISK) / draws)
    assert certified >= draws  # at least the largest one, on average


def fresh(pool, index, lean, large, rng):
    n = len(index)
    return replace(
        pool.take(index),
        lean=(rng.random(n) < lean[index]).astype(float),
        large=(rng.random(n) < large[index]).astype(float),
    )


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 300), min_size=1),
    st.floats(0.5, 0.99),
    st.floats(0.01, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_the_risk_is_shared_by_those_who_can_pass_and_no_other(sizes, retain, risk):
    records = [
        Record(prompt="x", lean_quality=1.0, large_quality=1.0, group=name)
        for name, size in sizes.items()
        for _ in range(size)
    ]
    plan = plan_groups(Table.of(records), retain, risk)
    assert set(plan.tested) | set(plan.small) == set(sizes) and not set(plan.tested) & set(plan.small)
    assert plan.risk * max(1, len(plan.tested)) == pytest.approx(risk)
    for name in plan.tested:
        assert retain ** sizes[name] <= plan.risk * (1 + 1e-9)
    for name, needed in plan.small.items():
        assert needed > 0 and sizes[name] + needed == fewest(retain, risk / (len(plan.tested) + 1))


def test_groups_of_five_certify_nothing_and_say_so():
    records, _, _ = grouped(100, 4, {str(index): 0.05 for index in range(20)})
    policy = calibrate_routing(records, RETAIN, 1 - RISK, strategies=("cascade",), per_group=True).policy
    assert policy.kind == "all-large" and all(rule.kind == "all-large" for rule in policy.groups.values())
    assert policy.certificate.outcome == "too-few-records" and policy.certificate.needed > 20
    assert not policy.certificate.certified and policy.scores is None
