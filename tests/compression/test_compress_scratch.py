"""Encoders that begin with random weights: the sizes that were asked for, the same tokens, taught by the large model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import plan_of, run_apart, run_plan
from encoder_making import FAMILIES, large_plan, make_encoder, sentence_encoder, student_plan, vectors_fields

from leanmodel_api.errors import InputError
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.classifiers import models
from leanmodel_compression.classifiers.shapes import encoder_shape
from leanmodel_compression.steps.encoders.scratch import KEYS
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]

SMALL = {"type": "Scratch", "layers": 1, "hiddenSize": 24, "intermediateSize": 40, "heads": 3}
TAUGHT = {"type": "Distill", "learningRate": "0.01", "epochs": "8", "maxLength": 32}
KNOWN = [name for name in FAMILIES if name.lower() in KEYS]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("scratch") / "store")


def large(folder: Path, data_file: Path, store: Store) -> CompressResult:
    return run_plan(large_plan(folder, data_file), store)


@pytest.mark.parametrize("family", KNOWN)
def test_a_small_model_of_the_family_is_drawn_and_taught(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path, family: str
) -> None:
    whole = large(make_encoder(tmp_path / family, texts, family, layers=3), data_file, store)
    made = run_apart(student_plan(whole, data_file, [SMALL, TAUGHT, {"type": "Trim"}]), store)
    begun, taught = made.steps[:2]
    assert [step.type for step in made.steps] == ["Scratch", "Distill", "Trim", "Export"]
    folder = store.open(begun.artifact).path
    shape, before = (encoder_shape(hf.read_json(store.open(one).path / hf.CONFIG)) for one in (begun.artifact, whole.artifact))  # fmt: skip
    assert (shape.layers, shape.hidden, shape.intermediate, shape.heads) == (1, 24, 40, 3)
    assert (shape.vocabulary, shape.labels) == (before.vocabulary, before.labels)
    counted = sum(parameter.numel() for parameter in models.load(folder).parameters())
    assert shape == before.resized(1, 24, 40, 3)
    assert abs(shape.parameters - counted) < 0.05 * counted
    assert begun.figures["peakAnonymousBytes"] <= begun.estimated_memory_bytes
    assert taught.figures["validationAccuracy"] > 0.9 > begun.figures["validationAccuracy"]
    assert made.bytes < whole.bytes


def test_the_same_sizes_draw_the_same_weights(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = make_encoder(tmp_path / "bert", texts, labels=("ham", "spam"))
    whole = run_plan(large_plan(folder, data_file, finetune=None), store)
    other = Store(tmp_path / "other")
    assert run_plan(large_plan(folder, data_file, finetune=None), other).artifact == whole.artifact
    steps = [SMALL, {**TAUGHT, "maxExamples": 32, "epochs": "1"}]
    one, two = (run_plan(student_plan(whole, data_file, steps), place) for place in (store, other))
    assert [step.artifact for step in one.steps] == [step.artifact for step in two.steps]


def test_a_sentence_encoder_keeps_its_pooling(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = sentence_encoder(tmp_path / "encoder", texts)
    fields = vectors_fields(data_file)
    whole = run_plan(plan_of(source={"uri": f"file:{folder}"}, **fields), store)
    taught = {**TAUGHT, "objectives": ["Embeddings"], "learningRate": "0.005"}
    plan = plan_of(role="Lean", base=whole.artifact, teacher=whole.artifact, **fields)
    made = run_plan(plan.model_copy(update={"steps": student_plan(whole, data_file, [{**SMALL, "hiddenSize": 32, "heads": 2}, taught]).steps}), store)  # fmt: skip
    shape = encoder_shape(hf.read_json(store.open(made.steps[0].artifact).path / hf.CONFIG))
    assert (shape.pooling, shape.normalize) == ("mean", True)
    assert made.steps[1].figures["validationCosine"] > 0.8


REFUSED: list[tuple[str, list[dict[str, Any]], str]] = [
    ("MobileBert", [SMALL, TAUGHT], r"steps\[0\]\.type: Scratch of a MobileBert.*not supported yet; write"),
    ("Bert", [SMALL], r"steps\[0\]\.type: found Scratch, whose weights are random, and no Distill after it"),
    (
        "Bert",
        [TAUGHT, SMALL, TAUGHT],
        r"steps\[1\]\.type: found Scratch, which begins anew, after the Distill",
    ),
    (
        "Bert",
        [SMALL, {**TAUGHT, "objectives": ["Logits", "Hidden"]}],
        r"Hidden compares states of 32 and 24 numbers",
    ),
]


@pytest.mark.parametrize(("family", "steps", "words"), REFUSED, ids=lambda value: str(value)[:20])
def test_what_cannot_be_begun_is_refused_before_any_work(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path, family: str, steps: list[dict[str, Any]], words: str
) -> None:  # fmt: skip
    folder = make_encoder(tmp_path / family, texts, family, labels=("ham", "spam"))
    whole = run_plan(large_plan(folder, data_file, finetune=None), store)
    with pytest.raises(InputError, match=words):
        run_plan(student_plan(whole, data_file, steps), store)
