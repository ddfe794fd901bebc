"""The proof of a classifier: labels asked of /classify, judged, calibrated and certified as answers are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from evaluation_double import Double
from test_evaluation_job import Bench, models, plan

from leanmodel_api.parts import Example
from leanmodel_evaluation.client import EndpointError, answer_body, parse_answer
from leanmodel_routing.decide import Decider, RequestFacts

TASK = "text-classification"


def test_a_label_is_one_token_with_the_best_two_beside_it() -> None:
    path, body = answer_body("demo", Example(id="1", text="free cash"), 8, TASK)
    assert (path, body) == ("/classify", {"model": "demo", "input": "free cash"})
    reply = {
        "data": [{"index": 0, "label": "spam", "probs": [0.1, 0.7, 0.2], "num_classes": 3}],
        "usage": {"prompt_tokens": 4},
    }
    found = parse_answer("r", reply, 0.1)
    assert (found.text, found.finish_reason, found.prompt_tokens, found.completion_tokens) == (
        "spam",
        "stop",
        4,
        0,
    )
    assert found.logprobs == pytest.approx([math.log(0.7)])
    assert found.top_logprobs == [pytest.approx([math.log(0.7), math.log(0.2)])]
    with pytest.raises(EndpointError):
        parse_answer("r", {"data": []}, 0.1)


def test_a_pair_of_classifiers_is_proven_and_routed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with Double(models(bench)) as double:
        done = bench.run(double, plan(task=TASK))
    assert done.returncode == 0, done.stderr
    assert {frozenset(body) for body in double.bodies} == {frozenset({"model", "input"})}
    report = bench.report()
    assert report.verdict == "Routed" and report.policy.kind == "cascade"
    scope = report.policy.scope
    assert (scope.endpoint, scope.temperature, scope.max_tokens, scope.n) == ("classify", None, None, None)
    figures = {model.name: model.figures for model in report.models if model.part == "report"}
    assert {"large", "lean", "pair", "always-ham", "tfidf-logreg"} <= set(figures)
    assert {"BalancedAccuracy", "ChoiceAccuracy", "F1", "Agreement"} <= set(figures["lean"])
    assert figures["pair"]["BalancedAccuracy"].value > figures["lean"]["BalancedAccuracy"].value
    assert report.speed["lean"].tokens_per_second > 0
    decider, facts = Decider(report.policy), RequestFacts(endpoint="classify", prompt="SMS: hello\nLabel:")
    assert decider.in_scope(facts) == (True, "")
    assert decider.confidence([-0.001], [[-0.001, -6.9]], "ham", "stop") > decider.confidence([-0.69], [[-0.69, -0.7]], "ham", "stop")  # fmt: skip
    assert not decider.in_scope(RequestFacts(endpoint="completions", prompt="SMS: hello\nLabel:"))[0]
