"""The router's side: scope, speed, and agreement with what was calibrated."""

from __future__ import annotations

import subprocess
import sys
import timeit
from dataclasses import replace

import numpy as np
import pytest
from routing_making import make_records

from leanmodel_api.policy import LinearHead, Policy, Predictor, Scope, SignalSpec
from leanmodel_routing import Decider, RequestFacts, calibrate, prompt_scope
from leanmodel_routing.predictors import confidence
from leanmodel_routing.predictors.fit import table_confidences
from leanmodel_routing.signals import SIGNALS, Observation, features
from leanmodel_routing.table import Table

CHAT = [
    {"role": "system", "content": "Say spam or ham."},
    {"role": "user", "content": "Message: {text}\nAnswer:"},
]
SCOPE = Scope(
    endpoint="chat",
    prompt=prompt_scope(CHAT),
    temperature=0.0,
    max_tokens=4,
    n=1,
    engine="vllm 1",
    lean_revision="r1",
)
FACTS = RequestFacts(
    endpoint="chat",
    messages=[CHAT[0], {"role": "user", "content": "Message: win a prize\nAnswer:"}],
    temperature=0.0,
    max_tokens=4,
    n=1,
    engine="vllm 1",
)


@pytest.fixture(scope="module")
def policy():
    return calibrate(make_records(1200, seed=4), 0.9, 0.9, scope=SCOPE).policy


def test_the_router_decides_as_calibration_did(policy):
    records = make_records(300, seed=11)
    batch = table_confidences(policy.predictor, Table.of(records))
    decider = Decider(policy)
    single = [decider.confidence(record.lean_logprobs, prompt=record.prompt_text) for record in records]
    assert single == pytest.approx(batch.tolist(), abs=1e-12)
    assert [decider.accept(score) for score in single] == (batch >= policy.threshold).tolist()
    assert policy.kind == "cascade" and decider.needs_logprobs


def test_what_is_missing_goes_large(policy):
    decider = Decider(policy)
    for nothing in (None, [], ()):
        assert decider.confidence(nothing) == 0.0
    assert not decider.accept(0.0)


def test_odd_log_probs_are_clipped(policy):
    decider = Decider(policy)
    for odd in ([float("-inf")], [float("nan")], [-9999.0], [1e-6]):
        assert 0.0 <= decider.confidence(odd) <= 1.0
    assert decider.confidence([float("nan")]) < decider.confidence([-0.01])


def test_fixed_policies_need_no_confidence(policy):
    certificate = policy.certificate
    large = Policy(kind="all-large", threshold=1.0, certificate=certificate, expected_large_share=1.0)
    lean = Policy(kind="all-lean", threshold=0.0, certificate=certificate, expected_large_share=0.0)
    assert not Decider(large).accept(1.0) and Decider(lean).accept(0.0)
    assert Decider(large).confidence([-0.1]) == 0.0
    assert not Decider(lean).needs_logprobs


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"endpoint": "completions"}, "endpoint"),
        ({"temperature": 0.7}, "temperature: 0.7, certified for 0.0"),
        ({"temperature": None}, "temperature: unset"),
        ({"max_tokens": 100}, "max_tokens"),
        ({"n": 2}, "n: 2"),
        ({"tools": True}, "tools"),
        ({"images": True}, "images"),
        ({"other_sampling": ("logit_bias",)}, "logit_bias"),
        ({"engine": "vllm 2"}, "engine"),
        ({"engine": None}, ""),
        ({"lean_revision": "r2"}, "lean_revision"),
        ({"messages": [FACTS.messages[1]]}, "roles"),
        ({"messages": [FACTS.messages[0], {"role": "user", "content": "win a prize"}]}, "template"),
        ({"messages": [{"role": "system", "content": "Be kind."}, FACTS.messages[1]]}, "template"),
        ({"messages": [FACTS.messages[0], {"role": "user", "content": [{"type": "text"}]}]}, "plain text"),
        ({"messages": [*FACTS.messages, {"role": "assistant", "content": "ham"}]}, "roles"),
        ({"messages": None}, "roles"),
    ],
)
def test_scope(policy, change, reason):
    inside, why = Decider(policy).in_scope(replace(FACTS, **change))
    assert inside is (reason == "")
    assert reason in why


def test_text_prompts_have_a_scope_too(policy):
    scope = Scope(endpoint="completions", prompt=prompt_scope("SMS: {text} ->"))
    decider = Decider(policy.model_copy(update={"scope": scope}))
    assert decider.in_scope(RequestFacts(endpoint="completions", prompt="SMS: hi ->")) == (True, "")
    assert not decider.in_scope(RequestFacts(endpoint="completions", prompt="SMS: hi"))[0]
    assert not decider.in_scope(RequestFacts(endpoint="completions", prompt="SMS:->"))[0]


def test_certified_sampling_can_be_filled_in(policy):
    assert Decider(policy).certified_sampling() == {"temperature": 0.0, "max_tokens": 4, "n": 1}


def test_deciding_loads_neither_numpy_nor_scikit_learn():
    code = "import sys, leanmodel_routing.decide; print({'numpy', 'scipy', 'sklearn'} & set(sys.modules))"
    paths = [path for path in sys.path if path]
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(paths)},
    )
    assert run.stdout.strip() == "set()"


def test_of_a_long_prompt_as_much_is_read_as_the_policy_says():
    signal, words = SIGNALS["prompt-ngrams"], [f"word{number}" for number in range(1200)]
    fitted = signal.fit(())
    most = fitted["words"]
    read = {
        n: signal.values(Observation(prompt=" ".join(words[:n])), fitted)
        for n in (most - 1, most, most + 1, 1200)
    }
    assert read[most - 1] != read[most] == read[most + 1] == read[1200]
    # Policies from before this was said were learnt on a thousand words.
    before = {
        n: signal.values(Observation(prompt=" ".join(words[:n])), {}) for n in (most + 1, 999, 1000, 1001)
    }
    assert before[most + 1] != before[999] != before[1000] == before[1001]


@pytest.mark.parametrize(
    "names", [("min-logprob", "logprob-quantiles", "length"), ("min-logprob", "prompt-ngrams")]
)
def test_a_confidence_takes_under_fifty_microseconds(policy, names):
    specs = tuple(SignalSpec(name=name) for name in names)
    size = sum(len(SIGNALS[name].feature_names({})) for name in names)
    head = LinearHead(intercept=0.1, coefficients=(0.1,) * size)
    predictor = Predictor(
        kind="benefit", name="x", signals=specs, feature_names=("f",) * size, means=(0.0,) * size,
        scales=(1.0,) * size, heads=(head, head),
    )  # fmt: skip
    timed = policy.model_copy(update={"predictor": predictor})
    values = features(specs, Observation([-0.1, -0.2], None, "a", "stop", "what is it"))
    best = min(timeit.repeat(lambda: confidence(timed, values), number=200, repeat=20)) / 200
    assert best < 50e-6


@pytest.mark.parametrize("name", SIGNALS)
def test_every_signal_gives_as_many_finite_values_as_names(name):
    signal = SIGNALS[name]
    answers = ["spam", "ham", "ham"] * 20
    observations = [
        Observation(
            [-0.1 * (i % 5), -2.0, 0.0],
            [[-0.1, -2.0], [-0.3, -1.0], [0.0, -50.0]],
            answer,
            "length",
            "Hi there!",
        )
        for i, answer in enumerate(answers)
    ]
    params = signal.fit(observations)
    names = signal.feature_names(params)
    for observation in observations:
        values = signal.values(observation, params)
        assert len(values) == len(names) and np.isfinite(values).all()


def test_signals_by_hand():
    observation = Observation(
        [-0.5, -0.1, -2.0, 0.0, 0.0], [[-0.5, -1.5], [-0.1, -3]], "Spam ", "length", "a b"
    )
    read = {name: SIGNALS[name].values(observation, {"choices": ["ham", "spam"]}) for name in SIGNALS}
    assert read["min-logprob"][0] == -2.0
    assert read["mean-logprob"] == [pytest.approx(-0.52)]
    assert read["logprob-quantiles"] == pytest.approx(
        np.quantile([-0.5, -0.1, -2, 0, 0], [0.05, 0.25, 0.5, 0.75])
    )
    assert read["first-tokens"][0] == pytest.approx(-0.65)
    assert read["margin"] == pytest.approx([1.0, 1.0])
    assert read["length"] == [pytest.approx(np.log(6))]
    assert read["finish"] == [1.0]
    assert read["answer-choice"] == [1.0]


def test_free_text_has_no_answer_choice():
    signal = SIGNALS["answer-choice"]
    params = signal.fit([Observation(answer=f"text {i}") for i in range(50)])
    assert signal.feature_names(params) == ()
