"""Sentence encoders: how a source says its pooling, a student in the teacher's space, and the file that is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import plan_of, run_plan
from encoder_making import FAMILIES, make_encoder, sentence_encoder, vectors_fields

from leanmodel_api.errors import InputError
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_compression import hf
from leanmodel_compression.classifiers import models, onnx_file
from leanmodel_compression.classifiers.pooling import KEY, Pooling, with_pooling
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]
TASK = "text-embedding"
STEPS = [
    {"type": "Prune", "keepLayers": 2, "selection": "Alternate"},
    {"type": "Distill", "objectives": ["Embeddings", "Hidden", "Attention"], "hiddenWeight": "0.5", "learningRate": "0.005",
     "epochs": "3", "maxLength": 32, "earlyStopping": {"patience": 3}},
    {"type": "Export", "precision": "Int8"},
]  # fmt: skip


def large_plan(folder: Path, data_file: Path, **more: Any) -> CompressPlan:
    return plan_of(source={"uri": f"file:{folder}"}, **vectors_fields(data_file), **more)


def student_plan(large: CompressResult, plan: CompressPlan, steps: list[dict[str, Any]]) -> CompressPlan:
    fields = plan.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={"source", "role", "limits"}
    )
    return plan_of(**{**fields, "role": "Lean", "base": large.artifact, "teacher": large.artifact, "steps": steps})  # fmt: skip


def served(folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    """Return the vectors as an engine gets them: tokenizer.json, padding, ONNX Runtime; nothing of torch."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(texts)
    arrays = {
        "input_ids": np.array([item.ids for item in found], dtype=np.int64),
        "attention_mask": np.array([item.attention_mask for item in found], dtype=np.int64),
    }
    session = onnx_file.session(folder / onnx_file.NAME)
    assert [out.name for out in session.get_outputs()] == ["embeddings"]
    vectors: np.ndarray[Any, Any] = session.run(["embeddings"], arrays)[0]
    return vectors


def by_hand(folder: Path, text: str, mode: str, normalize: bool) -> np.ndarray[Any, Any]:
    model, tokenizer = models.load_base(folder), hf.load_tokenizer(folder)
    with torch.no_grad():
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
    vector: np.ndarray[Any, Any] = states[0] if mode == "cls" else states.mean(axis=0)
    return vector / np.linalg.norm(vector) if normalize else vector


def test_a_student_gives_the_teachers_vectors_and_8_bits_keep_them(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    plan = large_plan(sentence_encoder(tmp_path / "encoder", texts), data_file)
    large = run_plan(plan, store)
    assert [step.type for step in large.steps] == ["Fetch", "Export"]
    assert "pooling mean, normalised" in large.steps[0].detail
    folder = store.open(large.artifact).path
    some = [text for _, text in texts[:6]]
    wanted = np.stack([by_hand(folder, text, "mean", True) for text in some])
    assert np.abs(served(folder, some) - wanted).max() < 1e-4
    made = run_plan(student_plan(large, plan, STEPS), store)
    prune, distill, export = made.steps
    assert distill.figures["validationCosine"] > 0.95 and distill.figures["bestStep"] > 0
    assert export.figures["meanCosineDistance"] < 0.05 and made.bytes < large.bytes / 2
    lean = store.open(made.artifact).path
    assert hf.read_json(lean / hf.CONFIG)[KEY] == {"mode": "mean", "normalize": True}
    cosine = (served(lean, some) * wanted).sum(axis=1)
    assert cosine.min() > 0.85
    # Cut and not taught, the same layers point elsewhere.
    cut = store.open(prune.artifact).path
    assert np.mean([by_hand(cut, text, "mean", True) @ row for text, row in zip(some, wanted, strict=True)]) < cosine.mean()  # fmt: skip


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"Bert", "DistilBert"}))
def test_every_family_gives_its_vectors_to_a_student(
    family: str, store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    plan = large_plan(sentence_encoder(tmp_path / family, texts, family=family), data_file)
    large = run_plan(plan, store)
    folder, some = store.open(large.artifact).path, [text for _, text in texts[:6]]
    wanted = np.stack([by_hand(folder, text, "mean", True) for text in some])
    assert np.abs(served(folder, some) - wanted).max() < 1e-3
    made = run_plan(student_plan(large, plan, STEPS), store)
    prune, distill, export = made.steps
    lean = served(store.open(made.artifact).path, some)
    assert np.linalg.norm(lean, axis=1) == pytest.approx(np.ones(len(some)), abs=1e-4)
    # Taught, and in 8 bits, it is nearer to the teacher than the same layers that were only cut.
    cut = np.stack([by_hand(store.open(prune.artifact).path, text, "mean", True) for text in some])
    assert (lean * wanted).sum(axis=1).mean() > (cut * wanted).sum(axis=1).mean()
    assert distill.figures["validationCosine"] > 0.8 and export.figures["meanCosineDistance"] < 0.1


def test_first_tokens_that_are_not_scaled_are_a_pooling_too(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    folder = sentence_encoder(tmp_path / "encoder", texts, "cls", normalize=False, family="DistilBert")
    large = run_plan(large_plan(folder, data_file), store)
    made = store.open(large.artifact).path
    some = [text for _, text in texts[:4]]
    wanted = np.stack([by_hand(made, text, "cls", False) for text in some])
    assert np.abs(served(made, some) - wanted).max() < 1e-3
    assert np.abs(np.linalg.norm(wanted, axis=1) - 1).max() > 0.1


def test_a_mean_leaves_padding_out() -> None:
    states, mask = torch.randn(2, 5, 4), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    found = Pooling("mean", False).of(states, mask)
    assert torch.allclose(found[0], states[0, :3].mean(0), atol=1e-6)
    assert torch.allclose(Pooling("cls", True).of(states, mask).norm(dim=-1), torch.ones(2))


def test_what_makes_no_vectors_is_refused_before_any_work(
    texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    plain = make_encoder(tmp_path / "plain", texts)
    maximum = sentence_encoder(tmp_path / "max", texts, "max")
    dense = sentence_encoder(tmp_path / "dense", texts)
    modules = json.loads((dense / "modules.json").read_text())
    (dense / "modules.json").write_text(json.dumps([*modules, {"type": "sentence_transformers.models.Dense"}]))  # fmt: skip
    broken = sentence_encoder(tmp_path / "broken", texts)
    (broken / "1_Pooling" / "config.json").unlink()
    headed = sentence_encoder(tmp_path / "headed", texts, labels=("ham", "spam"))
    cases = [
        (plain, "there is no modules.json beside its weights"),
        (maximum, "its pooling is pooling_mode_max_tokens, and only mean or cls is supported"),
        (dense, "its modules.json names Dense, which is not supported yet"),
        (broken, "cannot be read"),
        (headed, "has a classification head; write task: text-classification"),
    ]
    for folder, words in cases:
        with pytest.raises(InputError) as error:
            run_plan(large_plan(folder, data_file), Store(tmp_path / f"store-{folder.name}"))
        assert words in str(error.value) and "spec.large.source" in str(error.value)
    assert with_pooling({KEY: {"mode": "cls", "normalize": False}}, maximum)[KEY]["mode"] == "cls"
