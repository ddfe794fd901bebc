"""The proof of a sentence encoder: vectors asked of /v1/embeddings, neighbours compared, gates held, nothing escalated."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import numpy as np
import pytest
from evaluation_double import Double, Reply
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evaluation_job import Bench, plan

from leanmodel_api.parts import Example
from leanmodel_evaluation.answers import Answer
from leanmodel_evaluation.baselines import judged_baseline, train_baselines
from leanmodel_evaluation.client import EndpointError, answer_body, parse_answer
from leanmodel_evaluation.metrics import METRICS, Task, judge
from leanmodel_routing.decide import Decider, RequestFacts

TASK = "text-embedding"
VECTORS = Task((), 0, False, embeds=True)
GATE = {"metric": "LeanQuality", "min": "0.5"}


def answers(rows: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[Answer]:
    return [
        Answer(request=str(at), text="", vector=base64.b64encode(row.astype("<f4").tobytes()).decode())
        for at, row in enumerate(rows)
    ]


def qualities(lean: list[Answer], large: list[Answer]) -> dict[str, list[float]]:
    examples = [Example(id=str(at), text=f"t{at}") for at in range(len(large))]
    judged = judge(examples, lean, large, None, VECTORS)
    return {name: values.tolist() for name, values in judged.qualities.items()}


def test_neighbours_and_angles_worked_out_by_hand() -> None:
    # On a circle the nearest of eleven others are by angle; k is ten, so the one farthest of twelve is left out.
    angles = np.deg2rad(np.arange(12) * 30.0 + np.arange(12) ** 2 * 0.1)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    same = qualities(answers(3 * circle), answers(circle))
    assert set(same) == {"NeighborAgreement", "EmbeddingCosine"}
    assert same["NeighborAgreement"] == [1.0] * 12 and same["EmbeddingCosine"] == pytest.approx([1.0] * 12)
    turned = qualities(answers(-circle), answers(circle))
    # Opposite: the farthest comes first and the nearest is left out; nine of ten are shared.
    assert (
        turned["NeighborAgreement"] == pytest.approx([0.9] * 12) and turned["EmbeddingCosine"] == [0.0] * 12
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.floats(0, 3))
def test_quality_is_between_0_and_1_and_1_for_the_large_model(seed: int, n: int, noise: float) -> None:
    draw = np.random.default_rng(seed)
    large = draw.normal(size=(n, 8))
    found = qualities(answers(large + noise * draw.normal(size=(n, 8))), answers(large))
    own = qualities(answers(large), answers(large))
    assert all(0 <= value <= 1 for values in found.values() for value in values)
    assert own["NeighborAgreement"] == [1.0] * n and own["EmbeddingCosine"] == pytest.approx([1.0] * n)


def test_what_is_refused_or_of_another_width_is_worth_nothing() -> None:
    large = np.random.default_rng(0).normal(size=(30, 8))
    wide = qualities(answers(np.ones((30, 9))), answers(large))
    assert wide["NeighborAgreement"] == [0.0] * 30 and wide["EmbeddingCosine"] == [0.0] * 30
    some = answers(large)
    some[3] = Answer(request="3", text="", error="too long")
    found = qualities(some, answers(large))
    assert found["NeighborAgreement"][3] == found["EmbeddingCosine"][3] == 0
    assert not METRICS["Agreement"].applies(VECTORS, False)


def test_a_vector_is_asked_for_in_base64_and_kept() -> None:
    path, body = answer_body("demo", Example(id="1", text="free cash"), 8, TASK)
    assert path == "/v1/embeddings"
    assert body == {"model": "demo", "input": "free cash", "encoding_format": "base64"}
    reply = {
        "data": [{"object": "embedding", "index": 0, "embedding": "AACAPw=="}],
        "usage": {"prompt_tokens": 4},
    }
    found = parse_answer("r", reply, 0.1)
    assert (found.vector, found.text, found.prompt_tokens, found.logprobs) == ("AACAPw==", "", 4, [])
    with pytest.raises(EndpointError):
        parse_answer("r", {"data": []}, 0.1)


def test_a_search_by_words_is_held_against_the_large_model_too() -> None:
    words = ["red", "blue", "green", "sea", "win", "cash"]
    texts = [f"{a} {b}" for a in words for b in words]
    rows = np.array(
        [[(word in text.split()) + (word == text.split()[0]) for word in words] for text in texts], float
    )
    examples = [Example(id=str(at), text=text) for at, text in enumerate(texts)]
    (baseline,) = train_baselines(examples, [], VECTORS, "NeighborAgreement", 0)
    found = judged_baseline(baseline, examples, VECTORS, answers(rows))
    assert baseline.name == "tfidf-neighbours" and set(found.qualities) == {"NeighborAgreement"}
    by_lot = judged_baseline(
        baseline, examples, VECTORS, answers(np.random.default_rng(0).normal(size=rows.shape))
    )
    assert (
        found.qualities["NeighborAgreement"].mean() > 0.7 > 0.5 > by_lot.qualities["NeighborAgreement"].mean()
    )
    assert train_baselines([], [], VECTORS, "NeighborAgreement", 0) == []


def encoder(noise: float) -> object:
    """A vector that depends on the text alone, and a noise of its own beside it."""

    def answer(text: str) -> Reply:
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        draw = np.random.default_rng(seed)
        vector = draw.normal(size=12) + noise * np.random.default_rng(seed + 1).normal(size=12)
        return Reply(base64.b64encode(vector.astype("<f4").tobytes()).decode(), seconds=0.001)

    return answer


@pytest.mark.parametrize(("noise", "verdict"), [(0.1, "LeanTakesAll"), (3.0, "GateFailed")])
def test_a_pair_of_encoders_is_proven_by_its_gates(tmp_path: Path, noise: float, verdict: str) -> None:
    bench = Bench(tmp_path)
    base = plan(task=TASK, routing={"strategy": "Fixed", "fixed": "Lean"})
    data = {name: value for name, value in base["dataSet"].items() if name not in ("answer", "choices")}
    content = {**base, "dataSet": data, "evaluation": {**base["evaluation"], "gates": [GATE]}}
    with Double({"large-1": encoder(0.0), "lean-1": encoder(noise)}) as double:
        done = bench.run(double, content)
    assert done.returncode == 0, done.stderr
    assert {frozenset(body) for body in double.bodies} == {frozenset({"model", "input", "encoding_format"})}
    report = bench.report()
    assert report.verdict == verdict and report.metric == "NeighborAgreement"
    figures = {model.name: model.figures for model in report.models if model.part == "report"}
    assert figures["large"]["NeighborAgreement"].value == 1
    # These vectors are drawn by lot for each text: words say nothing of them.
    assert figures["tfidf-neighbours"]["NeighborAgreement"].value < 0.4
    assert (figures["lean"]["NeighborAgreement"].value > 0.5) == (noise < 1)
    assert "to the large model's)" in report.examples[0].lean and "AAAA" not in bench.page()
    # Whatever the request looks like, one text or many: nothing of it goes to another model.
    assert Decider(report.policy).in_scope(RequestFacts(endpoint="embeddings"))[0]
