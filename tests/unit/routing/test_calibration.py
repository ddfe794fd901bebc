"""Calibration from end to end: the cases with a name, and what must hold of every result."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_making import make_pool, make_records
from scipy import stats

from leanmodel_api.errors import InputError
from leanmodel_api.policy import Policy, PolicyEvaluation, Record
from leanmodel_routing import Parts, calibrate, evaluate_policy, split
from leanmodel_routing.bounds import bound_lines
from leanmodel_routing.monitors.label_free import requests_needed
from leanmodel_routing.policies.route import accepted
from leanmodel_routing.predictors.candidates import candidates_for
from leanmodel_routing.predictors.fit import fit_candidate, table_confidences
from leanmodel_routing.table import Table

KEYS = {"large_share", "quality", "cost", "cpt50", "cpt80", "apgr", "aiq", "certificate", "baselines"}


def plain(n, lean, large, *, logprob=None, seed=0, **options):
    """n records right with the chances `lean` and `large`, independent of everything else."""
    rng = np.random.default_rng(seed)
    return [
        Record(
            prompt=f"q{i}",
            lean_quality=float(rng.random() < lean),
            large_quality=float(rng.random() < large),
            lean_logprobs=(float(-rng.random()) if logprob is None else logprob,),
            **options,
        )
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def result():
    return calibrate(make_records(2000, seed=4), 0.95, 0.9, 0)


def test_a_cascade_is_certified_and_measured(result):
    policy, found = result.policy, result.evaluation
    assert (policy.kind, policy.certificate.outcome) == ("cascade", "cascade-certified")
    assert policy.certificate.certified and policy.certificate.p_value <= 0.1
    assert policy.certificate.n == policy.certificate.parts.certify == 800
    assert 0 < found.large_share < 1
    assert found.cost == pytest.approx(0.001 + 0.01 * found.large_share)
    assert found.apgr > 0.55
    assert found.baselines.oracle.quality >= found.quality > found.baselines.always_lean.quality
    assert found.quality > found.baselines.random.quality
    low, high = found.intervals["quality"].low, found.intervals["quality"].high
    assert low < found.quality < high
    assert policy.expected_large_share == found.large_share


def test_the_document_has_the_promised_keys(result):
    document = json.loads(json.dumps(result.document()))
    assert set(document) >= KEYS | {"policy"}
    assert set(document["certificate"]) >= {"retain", "confidence", "method", "n", "p_value", "certified"}
    assert set(document["baselines"]) == {"always_lean", "always_large", "random", "oracle"}
    assert Policy.model_validate(document["policy"]) == result.policy


def test_same_records_in_any_order_give_the_same_policy():
    records = make_records(600, seed=5)
    shuffled = list(records)
    random.Random(1).shuffle(shuffled)
    assert calibrate(records, 0.9, 0.9, 3).policy == calibrate(shuffled, 0.9, 0.9, 3).policy


def test_a_policy_survives_json(result):
    policy = result.policy
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    assert Policy.model_validate_json(policy.model_dump_json(exclude_none=True)) == policy
    assert Policy.model_validate(policy.model_dump(mode="json")) == policy
    found = result.evaluation
    assert PolicyEvaluation.model_validate_json(found.model_dump_json(exclude_none=True)) == found


def test_a_changed_policy_is_refused(result):
    content = result.policy.model_dump(mode="json")
    content["threshold"] = content["threshold"] / 2
    with pytest.raises(ValueError, match="changed after it was certified"):
        Policy.model_validate(content)


def test_too_few_records_say_how_many_more():
    result = calibrate(plain(150, 1.0, 1.0), 0.99, 0.9)
    certificate = result.policy.certificate
    assert (result.policy.kind, certificate.outcome, certificate.certified) == (
        "all-large",
        "too-few-records",
        False,
    )
    assert 150 < certificate.needed < 260
    assert str(certificate.needed) in certificate.message
    enough = calibrate(plain(150 + certificate.needed * 3, 1.0, 1.0), 0.99, 0.9)
    assert enough.policy.certificate.certified


def test_all_right_needs_no_large_model():
    result = calibrate(plain(1500, 1.0, 1.0), 0.99, 0.9)
    assert (result.policy.kind, result.policy.certificate.outcome) == ("all-lean", "lean-keeps-promise")
    assert result.evaluation.cpt50 is None and "no gap" in result.evaluation.reasons["cpt50"]
    assert result.evaluation.large_share == 0.0


def test_all_wrong_is_no_division_by_zero():
    result = calibrate(plain(600, 0.0, 0.0), 0.95, 0.9)
    assert result.policy.kind == "all-large"
    assert result.evaluation.quality_retained is None and "0" in result.evaluation.reasons["quality_retained"]
    assert result.evaluation.apgr is None


def test_a_lean_model_that_is_better_is_named_and_takes_all():
    result = calibrate(plain(2000, 0.9, 0.7), 0.99, 0.9)
    assert (result.policy.kind, result.policy.certificate.outcome) == ("all-lean", "lean-at-least-as-good")
    assert "not better" in result.evaluation.reasons["apgr"]


def test_a_lean_model_that_is_better_is_found_even_with_a_promise_of_everything():
    result = calibrate(plain(3000, 0.9, 0.7), 1.0, 0.9)
    assert result.policy.kind == "all-lean"


def test_a_constant_signal_can_only_take_all_or_nothing():
    good = calibrate(plain(1500, 0.95, 0.96, logprob=-0.5), 0.9, 0.9)
    bad = calibrate(plain(900, 0.5, 0.96, logprob=-0.5), 0.95, 0.9)  # too few to learn from prompts
    assert good.policy.kind == "all-lean"
    assert (bad.policy.kind, bad.policy.certificate.certified) == ("all-large", False)
    assert bad.policy.certificate.outcome == "promise-not-shown" and bad.policy.certificate.needed is None


def test_one_harm_in_a_sure_answer_does_not_turn_the_order_round():
    """A lean model that is sure and wrong once: sure answers are still accepted first."""
    rng = np.random.default_rng(0)
    records = [
        Record(
            prompt=str(index),
            lean_quality=float(index != 3),
            large_quality=1.0,
            lean_logprobs=(-1e-4 if index == 3 else float(-rng.exponential(0.05)) - 1e-3,),
        )
        for index in range(200)
    ]
    table = Table.of(records)
    (candidate,) = candidates_for(table)
    sure = table_confidences(fit_candidate(candidate, table, 0).predictor, table)
    least = np.array([record.lean_logprobs[0] for record in records])
    assert list(np.argsort(sure, kind="stable")) == list(np.argsort(least, kind="stable"))


def test_a_useless_lean_model_gets_nothing():
    result = calibrate(plain(1500, 0.0, 0.9), 0.95, 0.9)
    assert result.evaluation.large_share > 0.85  # 5% of the quality may be given away, and no more
    assert result.evaluation.quality_retained > 0.9


def test_ties_are_broken_for_neither_side():
    rng = np.random.default_rng(1)
    records = []
    for i in range(2000):
        sure = rng.random() < 0.6
        quality = float(rng.random() < (0.99 if sure else 0.5))
        records.append(
            Record(
                prompt=f"{i}", lean_quality=quality, large_quality=1.0, lean_logprobs=(-0.1 if sure else -2,)
            )
        )
    result = calibrate(records, 0.95, 0.9)
    assert result.policy.kind == "cascade"
    assert result.evaluation.large_share == pytest.approx(0.4, abs=0.06)


def test_no_saving_where_the_lean_call_costs_as_much():
    records = [
        record.model_copy(update={"lean_cost": 0.009, "large_cost": 0.01})
        for record in make_records(2000, seed=4)
    ]
    result = calibrate(records, 0.95, 0.9)
    assert (result.policy.kind, result.policy.certificate.outcome) == ("all-large", "no-saving")
    assert result.evaluation.cost == pytest.approx(0.01)


def test_unknown_costs_are_said_to_be_unknown():
    records = [record.model_copy(update={"lean_cost": None}) for record in make_records(900, seed=4)]
    found = calibrate(records, 0.9, 0.9).evaluation
    assert found.cost is None and found.baselines.random.cost is None
    assert (found.cost_basis, "cost" in found.reasons) == ("large-share", True)
    assert 0 < found.aiq <= 1


def test_without_log_probs_the_prompt_decides():
    rng = np.random.default_rng(2)
    records = []
    for i in range(2500):
        hard = rng.random() < 0.4
        words = "prove integral theorem" if hard else "greet say hello"
        quality = float(rng.random() < (0.2 if hard else 0.98))
        records.append(Record(prompt=f"please {words} {i}", lean_quality=quality, large_quality=0.97))
    result = calibrate(records, 0.95, 0.9)
    assert result.policy.predictor.name == "prompt"
    assert result.policy.kind == "cascade" and result.evaluation.large_share < 0.6


def test_balanced_accuracy_is_certified_over_classes():
    rng = np.random.default_rng(3)
    records = []
    for i in range(4000):
        spam = rng.random() < 0.13
        hard = rng.random() < 0.1
        right = float(not (spam and hard) or rng.random() < 0.1)
        logprob = -0.6 * rng.random() - (0.3 if hard else 0.0)
        records.append(
            Record(
                prompt=f"message {i}",
                lean_quality=right,
                large_quality=1.0,
                lean_logprobs=(logprob,),
                stratum="spam" if spam else "ham",
            )
        )
    balanced = calibrate(records, 0.98, 0.9, metric="balanced-accuracy")
    assert balanced.policy.scope.aggregate == "balanced"
    assert balanced.policy.certificate.certified and balanced.policy.certificate.blocks < 250
    share = np.mean([record.lean_quality for record in records if record.stratum == "spam"])
    assert balanced.evaluation.baselines.always_lean.quality == pytest.approx((1 + share) / 2, abs=0.03)
    plain_mean = calibrate(records, 0.98, 0.9)
    assert plain_mean.evaluation.large_share < balanced.evaluation.large_share


def test_a_class_that_certify_lacks_certifies_nothing():
    parts = split(make_records(900, seed=1, spam=0.3), 0)
    ham = tuple(record for record in parts.certify if record.stratum == "ham")
    result = calibrate(parts=Parts(parts.fit, ham, parts.report), retain=0.5, metric="balanced-accuracy")
    assert result.policy.kind == "all-large" and "'spam'" in result.policy.certificate.message


def test_looks_share_the_risk():
    records = make_records(2000, seed=4)
    once, often = (calibrate(records, 0.95, 0.9, looks=looks).policy.certificate for looks in (1, 10))
    assert often.looks == 10 and often.p_value <= 0.01
    assert (often.threshold_index or 0) <= (once.threshold_index or 0)


def test_the_t_test_goes_by_its_name_and_asks_for_its_records():
    records = make_records(2000, seed=4)
    approximate = calibrate(records, 0.95, 0.9, method="ltt-t (approximate)")
    assert approximate.policy.certificate.method == "ltt-t (approximate)"
    assert approximate.evaluation.large_share <= calibrate(records, 0.95, 0.9).evaluation.large_share
    few = calibrate(records[:500], 0.95, 0.9, method="ltt-t (approximate)").policy.certificate
    assert (few.outcome, few.needed) == ("too-few-records", 100)


def test_the_label_free_bound_counts_accepted_and_different():
    records = [
        record.model_copy(update={"lean_answer": "a", "large_answer": "a" if record.lean_quality else "b"})
        for record in make_records(2000, seed=4)
    ]
    result = calibrate(records, 0.95, 0.9)
    bound = result.policy.certificate.label_free
    assert 0 < bound.estimate < bound.upper < 0.2
    assert (bound.part, bound.n) == ("report", 400)
    assert bound.upper == pytest.approx(
        stats.beta.ppf(0.9, round(400 * bound.estimate) + 1, 400 - round(400 * bound.estimate))
    )
    # What the monitor itself needs for 3 points more, at the share that is accepted.
    requests = requests_needed(bound.upper, bound.upper + 0.03, 0.02, 0.05)
    accepted_share = 1 - result.evaluation.large_share
    assert bound.shadow_accepted == pytest.approx(requests * 0.02 * accepted_share, abs=1)
    first, second = bound_lines(bound)
    assert f"{bound.upper:.2%}" in first and str(requests) in second and str(bound.shadow_accepted) in second
    loss = result.evaluation.baselines.always_large.quality - result.evaluation.quality
    assert loss <= bound.estimate + 1e-9


def test_evaluating_on_the_calibration_records_is_said(result):
    records = make_records(2000, seed=4)
    assert any("very records" in note for note in evaluate_policy(result.policy, records).notes)
    assert not any("very records" in note for note in evaluate_policy(result.policy, records[:500]).notes)


def test_records_that_lack_what_the_policy_reads_go_large(result):
    records = [record.model_copy(update={"lean_logprobs": None}) for record in make_records(50, seed=9)]
    assert evaluate_policy(result.policy, records).large_share == 1.0


def test_groups_are_shown_and_small_ones_named(result):
    records = [
        record.model_copy(update={"group": "faq" if index < 400 else "legal"})
        for index, record in enumerate(make_records(500, seed=9))
    ]
    groups = evaluate_policy(result.policy, records).groups
    assert (groups["faq"].n, groups["faq"].enough, groups["legal"].enough) == (400, True, False)


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999))
@settings(max_examples=40, deadline=None)
def test_a_higher_threshold_never_lowers_the_large_share(first, second):
    low, high = sorted((first, second))
    policy = calibrate_once()
    table = Table.of(make_records(200, seed=9))
    scores = table_confidences(policy.predictor, table)
    shares = [
        1 - accepted(policy.model_copy(update={"threshold": threshold}), scores, 200).mean()
        for threshold in (low, high)
    ]
    assert shares[0] <= shares[1]


_CACHE: dict[str, Policy] = {}


def calibrate_once():
    if not _CACHE:
        _CACHE["policy"] = calibrate(make_records(800, seed=4), 0.9, 0.9).policy
    return _CACHE["policy"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 1.0]),
            st.sampled_from([0.0, 1.0]),
            st.one_of(st.none(), st.lists(st.floats(-30, 0), max_size=4)),
            st.one_of(st.none(), st.floats(0, 1)),
            st.sampled_from(["a", "b"]),
        ),
        min_size=3,
        max_size=40,
    ),
    st.sampled_from([0.5, 0.95, 1.0]),
    st.sampled_from(["quality", "balanced-accuracy"]),
)
@settings(max_examples=60, deadline=None)
def test_any_records_give_a_policy_and_finite_figures(rows, retain, metric):
    records = [
        Record(
            prompt=f"p{index % 7}",
            lean_quality=lean,
            large_quality=large,
            lean_logprobs=logprobs,
            lean_cost=cost,
            large_cost=cost,
            stratum=stratum,
            lean_answer=stratum,
        )
        for index, (lean, large, logprobs, cost, stratum) in enumerate(rows)
    ]
    result = calibrate(records, retain, 0.9, metric=metric)
    text = json.dumps(result.document(), allow_nan=False)
    assert Policy.model_validate(json.loads(text)["policy"]) == result.policy
    if result.policy.certificate.certified:
        assert result.policy.certificate.p_value <= 0.1 + 1e-9
    else:
        assert result.policy.kind == "all-large" and result.evaluation.large_share == 1.0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"retain": 0.0}, "retain"),
        ({"retain": 95}, "retain"),
        ({"confidence": 1.0}, "confidence"),
        ({"looks": 0}, "looks"),
        ({"records": []}, "records"),
        ({"metric": "balanced-accuracy"}, "stratum"),
    ],
)
def test_bad_input_is_named(options, field):
    settings_ = {"records": plain(30, 0.9, 0.9), **options}
    with pytest.raises(InputError, match=field):
        calibrate(**settings_)


def test_parts_are_apart_even_and_keep_equal_prompts_together():
    records = make_records(1000, seed=1, spam=0.1)
    doubled = records + [replace_quality(record) for record in records[:50]]
    parts = split(doubled, 7)
    texts = [{record.prompt_text for record in part} for part in (parts.fit, parts.certify, parts.report)]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    assert sum(map(len, (parts.fit, parts.certify, parts.report))) == 1050
    spam = [
        sum(record.stratum == "spam" for record in part) for part in (parts.fit, parts.certify, parts.report)
    ]
    assert spam[0] == pytest.approx(2 * spam[2], abs=8) and spam[1] == pytest.approx(2 * spam[2], abs=8)
    assert "repeat a prompt" in parts.notes[0]
    assert split(doubled, 8).fit != parts.fit


def replace_quality(record):
    return record.model_copy(update={"lean_quality": 1.0 - record.lean_quality})


def test_records_of_one_prompt_are_split_by_record():
    records = [replace_prompt(record) for record in make_records(300, seed=1)]
    parts = split(records, 0)
    assert (len(parts.fit), len(parts.certify), len(parts.report)) == (120, 120, 60)
    assert "split by record" in parts.notes[0]


def replace_prompt(record):
    return record.model_copy(update={"prompt": "hello"})


def test_the_fit_part_alone_shapes_the_policy():
    """Turning the report part round changes no decision."""
    pool = make_pool(1500, seed=2)
    parts = split(list(pool.table.records), 0)
    turned = replace(parts, report=tuple(replace_quality(record) for record in parts.report))
    one, other = (calibrate(parts=each, retain=0.95).policy for each in (parts, turned))
    assert (one.threshold, one.predictor) == (other.threshold, other.predictor)
