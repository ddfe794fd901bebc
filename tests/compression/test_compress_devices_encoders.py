"""Every step of encoders on pretended GPUs: the processor's bytes, and what is exported is exported from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import plan_of, run_plan
from encoder_making import large_plan, make_encoder, sentence_encoder, student_plan, vectors_fields
from pretend_device import FIRST, both, copied

from leanmodel_api.plan import CompressResult
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long, pytest.mark.timeout(590)]
TRAINING = {"epochs": "1", "learningRate": "0.005", "maxLength": 32, "checkpointSteps": 4, "maxExamples": 48}
TUNED = {**TRAINING, "batchSize": 16}
ALL = {"type": "Distill", "objectives": ["Logits", "Hidden", "Attention"], **TRAINING}
INT8 = {"type": "Export", "precision": "Int8"}
SECOND = "cuda:0 (pretended cuda:0), cuda:1 (pretended cuda:1)"

STEPS: dict[str, tuple[int, list[dict[str, Any]], list[str]]] = {
    "half the layers, distilled": (1, [{"type": "Prune", "keepLayers": 2, "selection": "Alternate"}, ALL], ["CPU", FIRST, "CPU"]),
    "distilled on two": (2, [ALL], [SECOND, "CPU"]),
    "neurons, exported": (1, [{"type": "Prune", "method": "Neurons", "ratio": "0.5", "samples": 16}, INT8], [FIRST, "CPU"]),
    "trimmed": (1, [{"type": "Trim"}], [FIRST, "CPU"]),
    "linear": (1, [{"type": "Linear"}], ["CPU"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoders") / "bert", texts, layers=4)


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory, classifier: Path, data_file: Path
) -> tuple[Store, CompressResult]:
    """A store with a classifier that has learned a little."""
    store = Store(tmp_path_factory.mktemp("tuned") / "store")
    return store, run_plan(large_plan(classifier, data_file, finetune=TUNED), store)


def test_a_classifier_is_trained_on_a_gpu(
    classifier: Path, data_file: Path, store: Store, tmp_path: Path
) -> None:
    plan = large_plan(classifier, data_file, finetune={**TUNED, "earlyStopping": {"patience": 1}})
    made = both(plan, store, Store(tmp_path / "other"))
    # The large model's export follows.
    assert [step.device for step in made.steps] == ["CPU", FIRST, "CPU"]


@pytest.mark.parametrize("name", STEPS)
def test_a_classifiers_step_on_a_gpu(
    name: str, tuned: tuple[Store, CompressResult], tmp_path: Path, data_file: Path
) -> None:
    count, steps, devices = STEPS[name]
    stores = copied(tuned[0], tmp_path / "one"), copied(tuned[0], tmp_path / "other")
    made = both(student_plan(tuned[1], data_file, steps), *stores, count)
    assert [step.device for step in made.steps] == devices


@pytest.mark.parametrize("count", [1, 2])
def test_a_sentence_encoder_on_gpus(
    count: int, store: Store, tmp_path: Path, data_file: Path, texts: list[tuple[str, str]]
) -> None:
    fields = vectors_fields(data_file)
    folder = sentence_encoder(tmp_path / "encoder", texts, normalize=False)
    large = run_plan(plan_of(source={"uri": f"file:{folder}"}, **fields), store)
    steps = [
        {"type": "Prune", "keepLayers": 2, "selection": "Alternate"},
        {"type": "Distill", "objectives": ["Embeddings", "Hidden", "Attention"], **TRAINING},
        {"type": "Export", "precision": "Float32"},
    ]
    plan = plan_of(role="Lean", base=large.artifact, teacher=large.artifact, steps=steps, **fields)
    made = both(plan, copied(store, tmp_path / "one"), copied(store, tmp_path / "other"), count)
    assert [step.device for step in made.steps] == ["CPU", FIRST if count == 1 else SECOND, "CPU"]
