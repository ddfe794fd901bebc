"""Encoders of every family: a head, a student made of the teacher's layers, and the file that is served."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import EVERY_LINE, Process, plan_of, run_plan
from encoder_making import FAMILIES, TASK, early_plan, large_plan, make_encoder, student_plan
from safetensors.torch import load_file

from leanmodel_api.errors import InputError
from leanmodel_api.plan import CompressResult
from leanmodel_api.steps import Distill, Prune
from leanmodel_compression import hf
from leanmodel_compression.batches import Rows
from leanmodel_compression.classifiers import models, onnx_file, rows
from leanmodel_compression.classifiers.shapes import encoder_shape
from leanmodel_compression.steps import ENCODERS
from leanmodel_compression.steps.protocol import Place, Task
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]
STUDENT = [
    {"type": "Prune", "keepLayers": 2, "selection": "Alternate"},
    {"type": "Distill", "objectives": ["Logits", "Hidden"], "learningRate": "0.005", "epochs": "4",
     "maxLength": 32, "checkpointSteps": 4},
    {"type": "Export", "precision": "Int8"},
]  # fmt: skip


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder") / "bert", texts, layers=4)


@pytest.fixture(scope="module")
def teacher(
    tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path, data_file: Path
) -> tuple[Store, CompressResult]:
    """A fine-tuned tiny BERT of four layers, in a store that the module's tests share."""
    store = Store(tmp_path_factory.mktemp("encoders") / "store")
    return store, run_plan(large_plan(teacher_folder, data_file), store)


def served(folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    """Return the logits as an engine gets them: tokenizer.json, padding, ONNX Runtime; nothing of torch."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(texts)
    arrays = {
        "input_ids": np.array([item.ids for item in found], dtype=np.int64),
        "attention_mask": np.array([item.attention_mask for item in found], dtype=np.int64),
    }
    logits: np.ndarray[Any, Any] = onnx_file.session(folder / onnx_file.NAME).run(["logits"], arrays)[0]
    return logits


def test_the_large_model_is_fine_tuned_and_served_as_what_it_teaches(
    teacher: tuple[Store, CompressResult], data_file: Path
) -> None:
    store, large = teacher
    assert [step.type for step in large.steps] == ["Fetch", "Finetune", "Export"]
    folder = store.open(large.artifact).path
    assert hf.read_json(folder / hf.CONFIG)["id2label"] == {"0": "ham", "1": "spam"}
    assert large.bytes == (folder / onnx_file.NAME).stat().st_size
    report = datasets.load(large_plan(folder, data_file).data_sets[0], Path("."), store).report
    wanted = [example.answer == "spam" for example in report]
    logits = served(folder, [str(example.text) for example in report])
    assert np.mean(logits.argmax(-1) == wanted) > 0.9
    model, tokenizer = models.load(folder), hf.load_tokenizer(folder)
    for example, row in zip(report, logits, strict=True):
        with torch.no_grad():
            alone = model(**tokenizer(example.text, return_tensors="pt")).logits[0].numpy()
        assert np.abs(alone - row).max() < 1e-3 * max(1.0, np.abs(alone).max())


def test_a_student_of_half_the_layers_is_distilled_and_exported_in_8_bits(
    teacher: tuple[Store, CompressResult], data_file: Path
) -> None:
    store, large = teacher
    made = run_plan(student_plan(large, data_file, STUDENT), store)
    prune, distill, export = made.steps
    assert "keepLayers 2 of 4 (1,3), Alternate" in prune.detail and prune.modules_changed == 2
    before, cut = (
        load_file(str(store.open(digest).path / hf.WEIGHTS)) for digest in (large.artifact, prune.artifact)
    )
    for new, old in enumerate((1, 3)):
        for name in (name for name in cut if f".layer.{new}." in name):
            assert torch.equal(cut[name], before[name.replace(f".layer.{new}.", f".layer.{old}.")])
    assert distill.figures["validationAccuracy"] >= 0.9
    assert export.figures["validationAccuracy"] >= distill.figures["validationAccuracy"] - 0.05
    assert export.modules_changed > 4
    folder = store.open(made.artifact).path
    assert not (folder / hf.WEIGHTS).exists()
    assert made.bytes == (folder / onnx_file.NAME).stat().st_size < large.bytes
    assert "int8" in made.steps[-1].detail.lower()
    # One scale for a whole matrix, as the table of embeddings has, is twice as far off.
    tensors = onnx.load(str(folder / onnx_file.NAME)).graph.initializer
    scales = [tensor for tensor in tensors if tensor.name.endswith("_scale") and "embed" not in tensor.name]
    assert scales and all(math.prod(scale.dims) > 1 for scale in scales)


def test_equal_plans_make_equal_bytes_and_another_seed_others(
    teacher: tuple[Store, CompressResult], teacher_folder: Path, data_file: Path, tmp_path: Path
) -> None:
    store, large = teacher
    later = early_plan(data_file, STUDENT)
    again = run_plan(large_plan(teacher_folder, data_file), Store(tmp_path / "again"), [later])
    assert again.artifact == large.artifact
    other = run_plan(student_plan(large, data_file, STUDENT[:2], seed=1), store)
    mine = run_plan(student_plan(large, data_file, STUDENT[:2]), store)
    assert other.artifact != mine.artifact


@pytest.mark.slow
def test_a_killed_distillation_ends_with_the_same_bytes(
    teacher: tuple[Store, CompressResult], data_file: Path, tmp_path: Path
) -> None:
    store, large = teacher
    plan = student_plan(large, data_file, [{**STUDENT[1], "epochs": "20"}])
    first = Process(plan, store.root, tmp_path / "first", *EVERY_LINE)
    assert first.follow(lambda line: line.message.startswith("optimiser step ") and line.done >= 8)
    first.kill()
    second = Process(plan, store.root, tmp_path / "second")
    second.follow()
    made = second.made()
    assert (made.steps[0].resumed_at or 0) >= 4
    other = Store(tmp_path / "other")
    source = store.open(large.artifact).path
    copied = run_plan(plan_of(source={"uri": f"file:{source}"}, task=TASK, maxModelLength=64), other)
    assert copied.artifact == large.artifact
    assert run_plan(plan, other).artifact == made.artifact


def halved(folder: Path, teacher: Path, seen: Rows) -> Path:
    """Run Prune and Distill on a two-layer classifier, without the Job; return the student's folder."""
    shape, source = encoder_shape(hf.read_json(teacher / hf.CONFIG)), teacher
    for spec in (
        Prune(type="Prune", keep_layers=1, selection="Alternate"),
        Distill(type="Distill", objectives=["Logits", "Hidden"], epochs="1", max_length=32),
    ):
        step = ENCODERS[spec.type]
        task = Task(
            spec, "spec.lean.steps[0]", encoder_shape(hf.read_json(source / hf.CONFIG)), 0, seen, shape
        )
        assert step.issues(task) == []
        place = Place(source, folder / spec.type, folder / "scratch", teacher, spec.type * 4, lambda *_: None)
        place.target.mkdir(parents=True)
        assert step.run(task, place).modules_changed > 0
        source = place.target
    return source


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"Bert"}))
def test_every_family_is_fine_tuned_halved_distilled_exported_and_measured(
    family: str, store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = make_encoder(tmp_path / family, texts, family)
    plan = large_plan(folder, data_file)
    made = run_plan(plan, store)
    assert made.steps[-1].figures["largestLogitDifference"] < 1e-3
    assert made.steps[-1].figures["validationAccuracy"] > 0.6
    large = store.open(made.artifact).path
    model = models.load(large)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert encoder_shape(hf.read_json(large / hf.CONFIG)).parameters == pytest.approx(counted, rel=0.05)
    parts = datasets.load(plan.data_sets[0], Path("."), store)
    train = rows.encode_all(hf.load_tokenizer(large), parts.train, ("ham", "spam"))
    student = models.load(halved(tmp_path / "student", large, Rows(train, ())))
    assert student.config.num_hidden_layers == 1
    fewer = sum(parameter.numel() for parameter in student.parameters())
    assert fewer == counted if family == "Albert" else fewer < counted


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    # what, how the model is made, how the plan differs, words of the message
    ("no head and no finetune", {}, {"finetune": None}, "spec.large.source: BertModel has no classification head; write spec.large.finetune"),
    ("other labels", {"labels": ("no", "yes")}, {"finetune": None}, "spec.dataSets[0].choices: found ham, spam, and the model's labels are no, yes"),
    ("labels without names", {"labels": ("LABEL_0", "LABEL_1")}, {"finetune": None}, "its labels have no names"),
    ("too long texts", {}, {"maxModelLength": 128}, "spec.serving.large.maxModelLength: 128 tokens, and the model was made for 64"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "made", "changes", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_cannot_classify_is_refused_before_any_work(
    what: str, made: dict[str, Any], changes: dict[str, Any], words: str,
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path,
) -> None:  # fmt: skip
    folder = make_encoder(tmp_path / "encoder", texts, **made)
    with pytest.raises(InputError) as error:
        run_plan(large_plan(folder, data_file, **changes), store)
    assert words in str(error.value)
    assert (
        not list((store.root / "keys").glob("*.json")) or len(list((store.root / "objects").iterdir())) <= 2
    )


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"type": "Prune", "keepLayers": 4, "selection": "First"}, "spec.lean.steps[0].keepLayers: 4 leaves 4 of the model's 4 layers"),
        ({"type": "Distill", "maxLength": 512}, "spec.lean.steps[0].maxLength: 512 tokens, and the model was made for 64"),
    ],
    ids=["nothing pruned", "too long rows"],
)  # fmt: skip
def test_the_lean_models_plan_is_checked_before_the_large_one_is_made(
    step: dict[str, Any], words: str, store: Store, teacher_folder: Path, data_file: Path
) -> None:
    with pytest.raises(InputError) as error:
        run_plan(large_plan(teacher_folder, data_file), store, [early_plan(data_file, [step])])
    assert words in str(error.value)
    assert not (store.root / "scratch").exists() or not list((store.root / "scratch").iterdir())


def test_a_decoder_is_told_its_own_task(store: Store, model_folder: Path, data_file: Path) -> None:
    with pytest.raises(InputError, match="LlamaForCausalLM is no encoder .*write task: text-generation"):
        run_plan(large_plan(model_folder, data_file), store)


def test_an_encoder_is_told_its_own_task(store: Store, teacher_folder: Path, data_file: Path) -> None:
    with pytest.raises(InputError, match="BertModel is not supported yet by Finetune"):
        run_plan(large_plan(teacher_folder, data_file, task=None), store)


def test_a_head_with_the_labels_in_another_order_keeps_its_own(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = make_encoder(tmp_path / "headed", texts, labels=("spam", "ham"))
    made = run_plan(large_plan(folder, data_file, finetune=None), store)
    assert json.loads((store.open(made.artifact).path / hf.CONFIG).read_text())["id2label"] == {
        "0": "spam",
        "1": "ham",
    }
    student = run_plan(
        student_plan(made, data_file, [{**STUDENT[1], "epochs": "8", "labelWeight": "1"}]), store
    )
    assert student.steps[0].figures["validationAccuracy"] > 0.8
