"""Two classifiers on ONNX Runtime behind the router: labels, batches, errors, and a cascade of both."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving_support import NAME, READY_S, Stack, policy, replace, until

from leanmodel_api.policy import PromptScope, Scope
from leanmodel_serving.applications import (
    EngineSettings,
    RouterArgs,
    desired_state,
    engine_application,
    router_application,
)

pytestmark = pytest.mark.long

BIG, SMALL, LINEAR = "large-float", "lean-int8", "lean-linear"
TEXTS = [
    f"{a} {b}"
    for a in ["win", "free", "hello", "lunch", "see"]
    for b in ["now", "cash", "later", "ok", "a", "b", "c"]
]


class Classifiers(Stack):
    """A host whose models classify."""

    def want(self, *revisions: str) -> None:
        token = str(self.run_dir / "engine-token")
        engines = [
            engine_application(
                EngineSettings(revision=name, model=str(self.models[name]), token_file=token, max_model_length=64),
                "ONNXRuntime",
            )
            for name in revisions
        ]  # fmt: skip
        router = RouterArgs(
            settings_file=str(self.settings_file), engine_token_file=token, internal_token_file=str(self.token_file)
        )  # fmt: skip
        replace(self.desired, json.dumps(desired_state(engines, router_application(router))))

    def write(self, **changes: Any) -> int:
        return super().write(**{"large": self.backend(BIG), "task": "text-classification", **changes})

    def classify(self, text: Any, **more: Any) -> Any:
        return self.client.post("/classify", json={"model": NAME, "input": text, **more})


def made() -> Path:
    """Return the folder of the tiny encoders, made once."""
    cache = Path(os.environ.get("LEANMODEL_CACHE", Path.home() / ".cache" / "leanmodel")) / "test-models"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / "classifiers-2"
    if not folder.exists():
        named = os.environ.get("LEANMODEL_COMPRESSION_PYTHON")
        python = named or str(Path(sys.prefix).parent / ".venv-compression" / "bin" / "python")
        with tempfile.TemporaryDirectory(dir=cache) as beside:  # so that a killed run leaves no half of it
            half = Path(beside) / folder.name
            subprocess.run(
                [python, str(Path(__file__).parent / "make_classifiers.py"), str(half)], check=True
            )
            half.rename(folder)
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Classifiers]:
    folder = made()
    models = {name: folder / name for name in (BIG, SMALL, LINEAR)}
    stack = Classifiers(tmp_path_factory.mktemp("both"), models)
    stack.write()
    stack.want(BIG, SMALL, LINEAR)
    stack.start()
    try:
        until(lambda: stack.ready(BIG, SMALL, LINEAR, "router"), READY_S, "both classifiers answer")
        yield stack
    finally:
        code = stack.stop()
        stack.client.close()
    assert code == 0, stack.log()


def test_an_answer_has_vllms_shape_and_torchs_probabilities(both: Classifiers) -> None:
    expected = json.loads((both.models[BIG] / "expected.json").read_text())
    for text, logits in expected.items():
        reply = both.classify(text)
        body = reply.json()
        assert reply.status_code == 200 and body["object"] == "list" and body["model"] == BIG
        (found,) = body["data"]
        total = sum(map(math.exp, logits))
        assert found["probs"] == pytest.approx([math.exp(value) / total for value in logits], abs=1e-4)
        assert found["label"] == ["ham", "spam", "news"][logits.index(max(logits))]
        assert (found["index"], found["num_classes"]) == (0, 3)
        assert body["usage"]["prompt_tokens"] == len(text.split()) + 2
        assert reply.headers["x-leanmodel-route"] == "large"


def test_several_texts_and_logits_and_truncation(both: Classifiers) -> None:
    many = both.classify(TEXTS).json()["data"]
    assert [item["index"] for item in many] == list(range(len(TEXTS)))
    alone = both.classify(TEXTS[3]).json()["data"][0]
    assert many[3]["probs"] == pytest.approx(alone["probs"], abs=1e-4)
    logits = both.classify(TEXTS[3], use_activation=False).json()["data"][0]["probs"]
    total = sum(map(math.exp, logits))
    assert [math.exp(value) / total for value in logits] == pytest.approx(alone["probs"], abs=1e-4)
    long = "win " * 80
    assert "takes 64" in both.classify(long).json()["error"]["message"]
    assert both.classify(long, truncate_prompt_tokens=-1).json()["usage"]["prompt_tokens"] == 64


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/classify", {"model": NAME}, 400, "input: expected a text"),
        ("/classify", {"model": NAME, "input": []}, 400, "input: expected a text"),
        ("/classify", {"model": "other", "input": "x"}, 404, "this endpoint serves"),
        ("/v1/completions", {"model": NAME, "prompt": "x"}, 404, "ask /classify"),
        ("/v1/chat/completions", {"model": NAME, "messages": [{"role": "user", "content": "x"}]}, 404, "ask /classify"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_says_why(
    both: Classifiers, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    reply = both.client.post(path, json=body)
    assert reply.status_code == status
    assert words in reply.json()["error"]["message"]


def test_requests_under_way_together_are_computed_together(both: Classifiers) -> None:
    def counted() -> dict[str, float]:
        lines = both.internal(BIG, "/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines)}

    before = counted()
    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(both.classify, TEXTS * 10))
    after = counted()
    assert {reply.status_code for reply in replies} == {200}
    texts = after["leanmodel_engine_texts_total"] - before["leanmodel_engine_texts_total"]
    batches = after["leanmodel_engine_batches_total"] - before["leanmodel_engine_batches_total"]
    assert texts >= len(TEXTS) * 10
    assert batches < texts
    assert after["process_resident_memory_bytes"] > 2**20


def test_the_unsure_go_to_the_large_model(both: Classifiers) -> None:
    both.configure(lean=both.backend(SMALL))
    lean = {text: both.internal(SMALL, "/classify", {"input": text}).json()["data"][0] for text in TEXTS}
    sure = {text: 1 / (1 + 1 / max(found["probs"])) for text, found in lean.items()}
    ranked = sorted(sure.values())
    at = max(range(8, 27), key=lambda index: ranked[index] - ranked[index - 1])
    threshold = (ranked[at] + ranked[at - 1]) / 2
    scope = Scope(endpoint="classify", prompt=PromptScope(roles=(), prefixes=("",), suffixes=("",)))
    both.configure(lean=both.backend(SMALL), strategy="Cascade", policy=policy(threshold, scope))
    try:
        routes = set()
        for text in TEXTS:
            reply = both.classify(text)
            accepted = sure[text] >= threshold
            assert reply.headers["x-leanmodel-route"] == ("lean" if accepted else "escalated")
            assert float(reply.headers["x-leanmodel-confidence"]) == pytest.approx(sure[text], abs=1e-4)
            assert reply.json()["model"] == (SMALL if accepted else BIG)
            assert float(reply.headers["x-leanmodel-cost-usd"]) > 0
            routes.add(reply.headers["x-leanmodel-route"])
        assert routes == {"lean", "escalated"}
        several = both.classify(TEXTS[:2])
        assert several.headers["x-leanmodel-route"] == "large"
        assert several.headers["x-leanmodel-scope"].startswith("input:")
    finally:
        both.configure()


def test_the_engine_asks_for_its_token(both: Classifiers) -> None:
    reply = both.client.post(f"/engines/{BIG}/classify", json={"input": "x"})
    assert reply.status_code == 401


def test_a_linear_model_is_served_as_an_encoder_is(both: Classifiers) -> None:
    both.configure(dark=[both.backend(LINEAR)])
    try:
        for text, logits in json.loads((both.models[LINEAR] / "expected.json").read_text()).items():
            (found,) = both.internal(LINEAR, "/classify", {"input": text}).json()["data"]
            total = sum(map(math.exp, logits))
            assert found["probs"] == pytest.approx([math.exp(value) / total for value in logits], abs=1e-5)
        many = both.internal(LINEAR, "/classify", {"input": TEXTS}).json()["data"]
        assert {item["label"] for item in many} == {"ham", "spam", "news"}
    finally:
        both.configure()
