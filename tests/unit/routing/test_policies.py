"""Strategies: chosen by their honest cost on the fit part, certified like any walk, decided alike by table and router."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_making import Pool

from leanmodel_api.errors import InputError
from leanmodel_api.policy import PartSizes, Policy, Record
from leanmodel_api.routing_policy import RoutingPolicy
from leanmodel_routing import Decider, calibrate, evaluate_policy, read_policy, split
from leanmodel_routing.calibration import Terms, certify_walk
from leanmodel_routing.cases import Spend
from leanmodel_routing.figures import curve_of
from leanmodel_routing.policies import STRATEGIES, Aim, choose_way
from leanmodel_routing.policies.route import route_table
from leanmodel_routing.policies.ways import combine, cost_each, tried
from leanmodel_routing.routing_calibration import calibrate_routing
from leanmodel_routing.table import Table
from leanmodel_routing.walk import SKIPPED

TOPICS = {"greet": (0.99, 0.99), "prove": (0.05, 0.95), "sum": (0.6, 0.97)}
"""Topic: chances that the lean and the large model answer rightly. `sum` shows in the log-probs, not in the prompt."""


def world(n, seed=0, *, lean_cost=0.001, telling=True, topics=tuple(TOPICS), **more):
    """n records with known chances; `telling`: whether log-probs and answer tell of a sum whether it is right."""
    rng = np.random.default_rng(seed)
    records, lean_chance, large_chance = [], np.zeros(n), np.zeros(n)
    for index in range(n):
        topic = topics[int(rng.integers(len(topics)))]
        lean, large = TOPICS[topic]
        sure = rng.random()
        if topic == "sum" and telling:
            lean = 0.98 if sure < 0.6 else 0.03
        logprob = -0.05 - (0.0 if not telling else (1.5 if topic == "prove" or sure >= 0.6 else 0.0))
        lean_chance[index], large_chance[index] = lean, large
        right = float(rng.random() < lean)
        own = "" if telling else f" to number {index}"
        records.append(
            Record(
                prompt=f"please {topic} this one, number {index}",
                lean_quality=right,
                large_quality=float(rng.random() < large),
                lean_logprobs=(logprob - 0.04 * rng.random(), -0.01),
                lean_answer=("yes" if right else "no") + own,
                large_answer="yes" + own,
                lean_cost=lean_cost,
                large_cost=0.01,
                lean_latency=0.3,
                large_latency=1.0,
                group=topic,
                **more,
            )
        )
    return Pool(Table.of(records), lean_chance, large_chance)


def records_of(*args, **options):
    return list(world(*args, **options).table.records)


@pytest.fixture(scope="module")
def results():
    """One calibration for each strategy that wins somewhere."""
    return {
        "cascade": calibrate_routing(records_of(2500, 1, topics=("sum",)), 0.95),
        "predictive": calibrate_routing(records_of(2500, 2, lean_cost=0.004, telling=False), 0.9),
        "combined": calibrate_routing(records_of(2500, 3, lean_cost=0.002), 0.9),
        "fixed": calibrate_routing(records_of(1500, 4, topics=("greet",)), 0.95),
    }


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_wins_where_it_should(results, name):
    policy, found = results[name].policy, results[name].evaluation
    assert [item.strategy for item in policy.considered if item.chosen] == [name]
    assert policy.certificate.certified
    assert policy.kind == found.kind == ("all-lean" if name == "fixed" else name)
    chosen = next(item for item in policy.considered if item.chosen)
    assert chosen.cost <= min(item.cost for item in policy.considered) * 1.02
    # What was predicted on fit is what the report part shows, within sampling error.
    assert found.cost == pytest.approx(chosen.cost, rel=0.25)
    assert found.lean_calls == pytest.approx(chosen.lean_calls, abs=0.12)


def test_costs_are_charged_honestly(results):
    found = results["predictive"].evaluation
    assert found.cost == pytest.approx((1 - found.large_share) * 0.004 + found.large_share * 0.01)
    assert found.lean_calls == pytest.approx(1 - found.large_share)
    found = results["cascade"].evaluation
    assert found.cost == pytest.approx(0.001 + found.large_share * 0.01)
    found = results["combined"].evaluation
    assert found.cost == pytest.approx(found.lean_calls * 0.002 + found.large_share * 0.01)
    assert 1 - found.large_share < found.lean_calls < 0.8
    assert found.latency == pytest.approx(found.lean_calls * 0.3 + found.large_share * 1.0)


def test_a_fixed_policy_still_shows_the_curve_it_was_held_against(results):
    found = results["fixed"]
    assert found.policy.predictor is not None and found.evaluation.curve
    assert found.evaluation.aiq is not None and found.policy.scores is None
    assert not Decider(found.policy).needs_logprobs


def test_a_price_of_latency_can_turn_the_choice():
    """A cascade is cheaper in dollars, but who waits twice pays for the seconds."""
    records = records_of(2500, 3, lean_cost=0.0001)
    slow = [record.model_copy(update={"lean_latency": 3.0}) for record in records]
    cheap, dear = (calibrate_routing(slow, 0.95, usd_per_second=price).policy for price in (0.0, 0.002))
    assert cheap.kind == "cascade" and dear.kind in ("combined", "predictive", "all-large")
    assert dear.usd_per_second == 0.002


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_router_decides_as_calibration_did(results, name):
    policy = results[name].policy
    records = records_of(400, 9)
    routed, decider = route_table(policy, Table.of(records)), Decider(policy)
    for row, record in enumerate(records):
        first = decider.first(record.prompt_text)
        score = first.score
        kept = first.route == "lean"
        if first.route == "try":
            score = decider.confidence(
                record.lean_logprobs, answer=record.lean_answer, prompt=record.prompt_text
            )
            kept = decider.accept(score)
        assert kept == routed.accepted[row]
        assert (first.route != "large") == routed.asked[row]
        if routed.scores is not None and policy.kind != "all-lean":
            assert score == pytest.approx(routed.scores[row], abs=1e-12)
    assert decider.needs_prompt or name in ("cascade", "fixed")
    assert decider.needs_logprobs == (name in ("cascade", "combined"))


def test_without_its_prompt_a_request_goes_large(results):
    for name in ("predictive", "combined"):
        assert Decider(results[name].policy).first(None).route == "large"


@pytest.mark.parametrize("name", STRATEGIES)
def test_policies_of_version_2_survive_json_and_show_a_change(results, name, tmp_path):
    policy = results[name].policy
    (tmp_path / "p").write_text(json.dumps(results[name].document(), allow_nan=False))
    assert read_policy(tmp_path / "p") == policy and policy.version == "2"
    content = json.loads((tmp_path / "p").read_text())["policy"]
    content["ask_at"] = 0.321
    (tmp_path / "p").write_text(json.dumps(content))
    with pytest.raises(InputError, match="changed after it was certified"):
        read_policy(tmp_path / "p")
    with pytest.raises(ValueError, match="version"):  # a reader of version 1 does not take it for its own
        Policy.model_validate_json(policy.model_dump_json())


def test_policies_of_version_1_still_load_and_decide(tmp_path):
    old = calibrate(records_of(900, 5, topics=("sum",)), 0.95).policy
    (tmp_path / "p").write_text(old.model_dump_json())
    found = read_policy(tmp_path / "p")
    assert found == old and not isinstance(found, RoutingPolicy) and found.version == "1"
    decider = Decider(found)
    assert decider.first("whatever").route == "try" and decider.accept(1.0)
    assert evaluate_policy(found, records_of(200, 6, topics=("sum",))).kind == "cascade"


def test_a_version_from_elsewhere_is_refused_by_its_number(results, tmp_path):
    content = results["cascade"].policy.model_dump(mode="json") | {"version": "3"}
    (tmp_path / "p").write_text(json.dumps(content))
    with pytest.raises(InputError, match="version: found '3'.*expected 1 or 2"):
        read_policy(tmp_path / "p")


@pytest.mark.parametrize(
    ("kind", "field"), [("predictive", "before"), ("combined", "before"), ("cascade", "predictor")]
)
def test_a_policy_without_its_predictor_is_refused(results, kind, field):
    bare = {"kind": kind, "threshold": 0.5, "digest": "", "predictor": None, "before": None}
    content = results["fixed"].policy.model_dump(mode="json") | bare
    with pytest.raises(ValueError, match=f"{field}: missing"):
        RoutingPolicy.model_validate(content)


@pytest.mark.parametrize("name", ["predictive", "combined", "fixed"])
def test_the_promise_holds_for_every_strategy(name):
    """Fit once, certify on 120 fresh samples of 500: broken in no more than the stated share of them."""
    retain, risk, draws = 0.93, 0.1, 120
    pool = world(12_000, 7, lean_cost=0.004, topics=("greet", "greet", "prove", "sum"))
    rng = np.random.default_rng(0)
    aim = Aim(pool.draw(1500, rng), 500, retain, risk, 0, None, 0.0)
    way = choose_way(aim, (name,)).way
    every = way.scores(pool.table)
    terms, spend = Terms(retain, 1 - risk, risk, 1, 0), Spend(way.strategy)
    broken = certified = 0
    for _ in range(draws):
        index = rng.choice(len(pool.table), size=500, replace=False)
        drawn = replace(
            pool.table.take(index),
            lean=(rng.random(500) < pool.lean_chance[index]).astype(float),
            large=(rng.random(500) < pool.large_chance[index]).astype(float),
        )
        found = certify_walk(
            way.walk,
            way.method,
            drawn,
            every[index],
            terms,
            PartSizes(fit=1500, certify=500, report=0),
            spend,
        )
        certified += found.certificate.certified
        accept = np.zeros(len(every), dtype=bool)
        if found.decision.step is not None:
            accept = every >= way.walk.thresholds[found.decision.step]
        quality, large = pool.true_quality(accept)
        broken += quality < retain * large - 1e-12
    assert broken / draws <= risk + 2.33 * math.sqrt(risk * (1 - risk) / draws)
    assert certified > 0.8 * draws if name != "fixed" else certified < 0.2 * draws


def test_lean_at_least_as_good_and_too_few_keep_their_names():
    better = [
        record.model_copy(update={"large_quality": float(index % 5 > 0)})
        for index, record in enumerate(records_of(2000, 8, topics=("greet",)))
    ]
    found = calibrate_routing(better, 0.95).policy
    assert (found.kind, found.certificate.outcome) == ("all-lean", "lean-at-least-as-good")
    few = calibrate_routing(records_of(60, 8, topics=("greet",)), 0.99).policy
    assert (few.kind, few.certificate.outcome) == ("all-large", "too-few-records")
    assert few.certificate.needed > 50 and few.scores is None


def test_the_certify_and_report_parts_choose_nothing(results):
    """With other certify and report records the strategies are rated the same."""
    parts = split(records_of(2500, 3, lean_cost=0.002), 0)
    turned = [
        record.model_copy(update={"lean_quality": 1 - record.lean_quality})
        for record in (*parts.certify, *parts.report)
    ]
    half = len(parts.certify)
    other = replace(parts, certify=tuple(turned[:half]), report=tuple(turned[half:]))
    one = results["combined"].policy
    two = calibrate_routing(parts=other, retain=0.9).policy
    assert one.considered == two.considered and one.before == two.before and one.predictor == two.predictor


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"strategies": ("best",)}, "strategies"),
        ({"strategies": ()}, "strategies"),
        ({"strategies": ("predictive",)}, "strategies"),
        ({"usd_per_second": -1.0}, "usd_per_second"),
        ({"usd_per_second": 0.1, "strip": "lean_latency"}, "usd_per_second"),
        ({"per_group": True, "strip": "group"}, "group"),
    ],
)
def test_bad_input_is_named(options, field):
    strip = options.pop("strip", None)
    records = records_of(90, 1)
    if strip:
        records = [record.model_copy(update={strip: None}) for record in records]
    with pytest.raises(InputError, match=field):
        calibrate_routing(records, **options)


def test_without_costs_large_calls_are_counted():
    records = [record.model_copy(update={"lean_cost": None}) for record in records_of(1500, 3)]
    found = calibrate_routing(records, 0.95)
    assert {item.basis for item in found.policy.considered} == {"large-share"}
    assert all(item.strategy != "combined" for item in found.policy.considered)
    assert found.evaluation.cost is None


rows = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans(), st.floats(0, 1), st.floats(0, 1)),
    min_size=1,
    max_size=30,
)


@given(rows, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_what_is_skipped_is_never_kept_and_costs_no_lean_call(items, ask_at, threshold):
    before, after = np.array([row[0] for row in items]), np.array([row[1] for row in items])
    table = Table.of(
        [
            Record(prompt="x", lean_quality=0.0, large_quality=1.0, lean_cost=row[3], large_cost=row[4])
            for row in items
        ]
    )
    scores = combine(before, ask_at, after, len(items))
    kept = scores >= threshold
    asked = tried("combined", scores, kept)
    assert (kept <= asked).all() and (asked == (before >= ask_at)).all()
    assert ((scores == SKIPPED) == ~asked).all()
    cost = cost_each(table, asked, kept)
    assert cost == pytest.approx(asked * table.lean_cost + ~kept * table.large_cost)
    assert (
        cost_each(table, tried("predictive", before, kept), kept)
        <= cost_each(table, np.ones(len(items), bool), kept) + 1e-12
    ).all()


@given(rows, st.booleans())
@settings(max_examples=100, deadline=None)
def test_curves_cost_what_their_points_cost(items, direct):
    table = Table.of(
        [
            Record(prompt="x", lean_quality=0.0, large_quality=1.0, lean_cost=row[3], large_cost=row[4])
            for row in items
        ]
    )
    scores = np.array([SKIPPED if row[2] and not direct else row[0] for row in items])
    curve = curve_of(table, scores, direct=direct)
    for threshold, cost in zip(curve.threshold, curve.cost, strict=True):
        kept = scores >= threshold
        asked = tried("predictive" if direct or not kept.any() else "combined", scores, kept)
        assert cost == pytest.approx(cost_each(table, asked, kept).mean())
