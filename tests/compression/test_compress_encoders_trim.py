"""A trimmed encoder: a smaller table, the same labels and vectors, a tokenizer that loads as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import plan_of, run_apart, run_plan
from encoder_making import (
    FAMILIES,
    TASK,
    large_plan,
    make_encoder,
    sentence_encoder,
    student_plan,
    texts_set,
    vectors_fields,
)
from safetensors.torch import load_file

from leanmodel_api.errors import InputError
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.classifiers import models, onnx_file
from leanmodel_compression.classifiers.shapes import encoder_shape
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

TRIM = {"type": "Trim"}
INT8 = {"type": "Export", "precision": "Int8"}


@pytest.fixture(scope="module")
def wider(texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Texts with words that the data set has not: what a tokenizer learned of them goes."""
    return texts + [(label, " ".join(word[::-1] for word in text.split())) for label, text in texts]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("trim") / "store")


def inputs(tokenizer: Any, text: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return a text as the engine asks the file for it."""
    tokens = tokenizer(text, return_tensors="np")
    return {name: np.asarray(tokens[name], dtype=np.int64) for name in ("input_ids", "attention_mask")}


def classifier(
    folder: Path, wider: list[tuple[str, str]], data_file: Path, store: Store, family: str
) -> CompressResult:
    """Return a classifier that is fetched and not trained: Trim asks for no quality."""
    made = make_encoder(folder, wider, family, labels=("ham", "spam"))
    return run_plan(large_plan(made, data_file, finetune=None), store)


LATER = ("DistilBert", "MobileBert", "SqueezeBert")


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[pytest.mark.long] if name in LATER else []) for name in FAMILIES],
)
def test_the_table_shrinks_and_labels_stay(
    store: Store, data_file: Path, wider: list[tuple[str, str]], texts: list[tuple[str, str]], tmp_path: Path, family: str
) -> None:  # fmt: skip
    large = classifier(tmp_path / "model", wider, data_file, store, family)
    made = run_apart(student_plan(large, data_file, [TRIM]), store)
    step, whole = made.steps[0], store.open(large.artifact).path
    new = store.open(step.artifact).path
    kept, before = int(step.figures["tokens"]), int(step.figures["tokensBefore"])
    assert kept < before and step.modules_changed == 1 and step.figures["validationTokens"] >= 1
    assert step.figures["peakAnonymousBytes"] <= step.estimated_memory_bytes
    assert hf.read_json(new / hf.CONFIG)["vocab_size"] == kept == len(hf.load_tokenizer(new))
    was, now = (load_file(str(folder / hf.WEIGHTS)) for folder in (whole, new))
    (table,) = [name for name in was if name.endswith("word_embeddings.weight")]
    assert now[table].shape == (kept, was[table].shape[1])
    assert all(torch.equal(was[name], now[name]) for name in was if name != table)
    shapes = [encoder_shape(hf.read_json(folder / hf.CONFIG)) for folder in (whole, new)]
    assert shapes[0].parameters - shapes[1].parameters == was[table].numel() - now[table].numel()
    tokenizers = [hf.load_tokenizer(folder) for folder in (whole, new)]
    classifiers = [models.load(folder) for folder in (whole, new)]
    compared = 0
    for _, text in texts:
        asked, told = (one(text, return_tensors="pt") for one in tokenizers)
        if asked["input_ids"].shape == told["input_ids"].shape:
            with torch.no_grad():
                logits = [model(**ids).logits for model, ids in zip(classifiers, (asked, told), strict=True)]
            torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)
            compared += 1
    # The train part at least: 0.4 of the messages.
    assert compared >= 96


def test_it_is_exported_in_8_bits_and_makes_the_same_bits_again(
    store: Store, data_file: Path, wider: list[tuple[str, str]], tmp_path: Path
) -> None:
    large = classifier(tmp_path / "model", wider, data_file, store, "Bert")
    plan = student_plan(large, data_file, [TRIM, INT8])
    made, again = run_plan(plan, store), run_plan(plan, store)
    whole = run_plan(student_plan(large, data_file, [INT8]), store)
    assert [step.type for step in made.steps] == ["Trim", "Export"]
    assert [step.cached for step in again.steps] == [True, True] and again.artifact == made.artifact
    assert made.bytes < whole.bytes and made.parameters < whole.parameters
    other = Store(tmp_path / "other")
    assert (
        run_plan(large_plan(tmp_path / "model", data_file, finetune=None), other).artifact == large.artifact
    )
    assert run_plan(plan, other).artifact == made.artifact
    folder = store.open(made.artifact).path
    tokenizer = hf.load_tokenizer(folder)
    asked = inputs(tokenizer, "Unseen wörds: 漢字")
    logits = onnx_file.session(folder / onnx_file.NAME).run(["logits"], asked)[0]
    assert logits.shape == (1, 2) and np.isfinite(logits).all()


@pytest.mark.parametrize("family", ["Bert", "MobileBert"])
def test_vectors_stay(
    store: Store, data_file: Path, wider: list[tuple[str, str]], texts: list[tuple[str, str]], tmp_path: Path, family: str
) -> None:  # fmt: skip
    folder = sentence_encoder(tmp_path / "encoder", wider, family=family)
    fields = vectors_fields(data_file)
    large = run_plan(plan_of(source={"uri": f"file:{folder}"}, **fields), store)
    plan = plan_of(role="Lean", base=large.artifact, teacher=large.artifact, steps=[TRIM], **fields)
    made = run_plan(plan, store)
    assert [step.type for step in made.steps] == ["Trim", "Export"] and made.bytes < large.bytes
    both = [store.open(digest).path for digest in (large.artifact, made.artifact)]
    tokenizers = [hf.load_tokenizer(place) for place in both]
    sessions = [onnx_file.session(place / onnx_file.NAME) for place in both]
    compared = 0
    for _, text in texts[:80]:
        asked = [inputs(tokenizer, text) for tokenizer in tokenizers]
        if asked[0]["input_ids"].shape == asked[1]["input_ids"].shape:
            one, other = (
                session.run(["embeddings"], ids)[0] for session, ids in zip(sessions, asked, strict=True)
            )
            assert np.abs(one - other).max() < 1e-4
            compared += 1
    assert compared >= 30


def test_a_teacher_with_all_tokens_is_refused_after_it(
    store: Store, data_file: Path, wider: list[tuple[str, str]], tmp_path: Path
) -> None:
    large = classifier(tmp_path / "model", wider, data_file, store, "Bert")
    with pytest.raises(InputError, match=r"steps\[1\]\.type: found Distill, whose teacher has all tokens"):
        run_plan(student_plan(large, data_file, [TRIM, {"type": "Distill", "objectives": ["Logits"]}]), store)


def test_a_sentence_piece_tokenizer_is_refused_by_its_name(
    store: Store, data_file: Path, wider: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = make_encoder(tmp_path / "albert", wider, "Albert", labels=("ham", "spam"))
    words = hf.read_json(folder / "tokenizer.json")
    words["model"] = {
        "type": "Unigram",
        "unk_id": 1,
        "vocab": [[word, 0.0] for word in words["model"]["vocab"]],
    }
    hf.write_json(folder / "tokenizer.json", words)
    plan = large_plan(folder, data_file, finetune=None)
    with pytest.raises(
        InputError, match=r"steps\[0\]\.type: Trim of a Unigram tokenizer is not supported yet"
    ):
        run_plan(plan, store, [student_plan_of(data_file)])


def student_plan_of(data_file: Path) -> Any:
    """Return the lean model's plan as it is while there is no large model yet."""
    return plan_of(role="Lean", steps=[TRIM], dataSets=[texts_set(data_file)], maxModelLength=64, task=TASK)
