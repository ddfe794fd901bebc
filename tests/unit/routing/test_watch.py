"""The watch of a policy: its monitors together, from a calibration to an alarm."""

from __future__ import annotations

import json

import numpy as np
import pytest
from routing_making import make_records

from leanmodel_api.errors import InputError
from leanmodel_routing import Decider, calibrate
from leanmodel_routing.monitors import Watch
from leanmodel_routing.routing_calibration import calibrate_routing

RATE, LEVEL = 0.2, 0.1


def with_answers(records):
    """Free text that differs from the large model's exactly where the lean answer is wrong."""
    return [
        record.model_copy(
            update={
                "lean_answer": record.prompt,
                "large_answer": record.prompt if record.lean_quality else "other",
            }
        )
        for record in records
    ]


@pytest.fixture(scope="module")
def policy():
    return calibrate_routing(with_answers(make_records(2500, 1)), 0.95, strategies=("cascade",)).policy


def served(policy, records, rng, replicas=3):
    """Tallies of some replicas that route these records, merged as a router would."""
    decider, watch = Decider(policy), Watch.of(policy, RATE, LEVEL)
    tallies = [watch.tally() for _ in range(replicas)]
    for index, record in enumerate(records):
        tally = tallies[index % replicas]
        score = decider.confidence(record.lean_logprobs, answer=record.lean_answer, prompt=record.prompt_text)
        kept = decider.accept(score)
        tally.request(score, accepted=kept)
        if kept and rng.random() < RATE:
            tally.shadow(record.lean_answer != record.large_answer, RATE)
    merged = watch.tally()
    for tally in tallies:
        merged.merge(tally.counts())
    return {"": merged}


def test_traffic_like_the_certified_gives_no_alarm_and_harder_traffic_does(policy):
    rng = np.random.default_rng(0)
    assert policy.kind == "cascade"
    watch = Watch.of(policy, RATE, LEVEL)
    for period in range(20):
        watch = watch.fold(served(policy, with_answers(make_records(200, 100 + period)), rng))
    assert watch.alarms() == {}
    # The same prompts' log-probs, but a lean model that is wrong far more often: scores alone do not show it.
    for period in range(20):
        records = with_answers(make_records(200, 200 + period, lean_ease=-0.6))
        watch = watch.fold(served(policy, records, rng))
    assert set(watch.alarms()) == {"label-free"} and "is broken" in watch.alarms()["label-free"]


def test_other_prompts_show_in_their_scores(policy):
    rng = np.random.default_rng(1)
    watch = Watch.of(policy, RATE, LEVEL)
    for period in range(6):
        records = [
            record.model_copy(update={"lean_logprobs": tuple(2.0 * value for value in record.lean_logprobs)})
            for record in with_answers(make_records(200, 300 + period))
        ]
        watch = watch.fold(served(policy, records, rng))
    assert "score-drift" in watch.alarms() and "drifted away" in watch.alarms()["score-drift"]


def test_state_is_small_and_bound_to_its_policy(policy):
    rng = np.random.default_rng(2)
    watch = Watch.of(policy, RATE, LEVEL).fold(served(policy, with_answers(make_records(100, 7)), rng))
    text = watch.model_dump_json()
    assert len(text) < 4000 and Watch.resumed(text, policy) == watch
    json.loads(text)
    other = policy.model_copy(update={"digest": "sha256:00"})
    with pytest.raises(InputError, match="watch.policy"):
        Watch.resumed(text, other)


def test_a_policy_of_version_1_is_watched_by_its_bound_alone():
    old = calibrate(with_answers(make_records(1500, 1)), 0.9).policy
    watch = Watch.of(old, RATE, LEVEL)
    assert set(watch.label_free) == {""} and watch.score_drift is None
    assert (
        watch.label_free[""].level == LEVEL and watch.label_free[""].bound == old.certificate.label_free.upper
    )


def test_all_large_needs_no_watch():
    policy = calibrate_routing(with_answers(make_records(40, 1)), 0.99).policy
    assert policy.kind == "all-large"
    watch = Watch.of(policy, RATE, LEVEL)
    assert watch.label_free == {} and watch.score_drift is None and watch.alarms() == {}


@pytest.mark.parametrize(
    ("rate", "level", "field"),
    [(0.0, 0.1, "rate"), (1.5, 0.1, "rate"), (0.1, 0.0, "level"), (0.1, 0.9, "level")],
)
def test_bad_numbers_are_named(policy, rate, level, field):
    with pytest.raises(InputError, match=field):
        Watch.of(policy, rate, level)
