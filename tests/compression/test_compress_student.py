"""A student that was brought along: steps work on it while the large model teaches, where both read the same tokens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, make_model, plan_of, run_plan
from encoder_making import TASK, large_plan, make_encoder, texts_set

from leanmodel_api.errors import InputError
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_compression import hf
from leanmodel_compression.classifiers import models
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]

TAUGHT = {"type": "Distill", "learningRate": "0.01", "epochs": "6", "maxLength": 32}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("student") / "store")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    return make_encoder(tmp_path_factory.mktemp("teacher") / "bert", texts, layers=4)


@pytest.fixture(scope="module")
def classifier(store: Store, encoder: Path, data_file: Path) -> CompressResult:
    """A fine-tuned tiny BERT of four layers."""
    return run_plan(large_plan(encoder, data_file), store)


def same_tokens(folder: Path, other: Path) -> Path:
    """Give a model another one's tokenizer, as two sizes of one family have the same."""
    for name in TOKENIZER:
        if (other / name).exists():
            shutil.copyfile(other / name, folder / name)
    return folder


def brought(folder: Path, large: CompressResult, data: dict[str, Any], steps: list[dict[str, Any]], **more: Any) -> CompressPlan:  # fmt: skip
    return plan_of(
        role="Lean", source={"uri": f"file:{folder}"}, teacher=large.artifact, steps=steps, dataSets=[data], **more
    )  # fmt: skip


def test_another_encoder_gets_a_head_and_learns_the_labels(
    store: Store, encoder: Path, classifier: CompressResult, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:  # fmt: skip
    folder = same_tokens(make_encoder(tmp_path / "distil", texts, "DistilBert"), encoder)
    steps = [TAUGHT, {"type": "Trim"}, {"type": "Export", "precision": "Int8"}]
    plan = brought(folder, classifier, texts_set(data_file), steps, task=TASK, maxModelLength=64)
    made = run_plan(plan, store)
    assert [step.type for step in made.steps] == ["Fetch", "Distill", "Trim", "Export"]
    assert "no head yet" in made.steps[0].detail and made.bytes < classifier.bytes
    assert made.steps[-1].figures["validationAccuracy"] > 0.9
    assert list(hf.read_json(store.open(made.artifact).path / hf.CONFIG)["id2label"].values()) == [
        "ham",
        "spam",
    ]


def test_a_head_of_its_own_with_labels_in_another_order_is_taught_its_own_order(
    store: Store, encoder: Path, classifier: CompressResult, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:  # fmt: skip
    folder = same_tokens(make_encoder(tmp_path / "bert", texts, labels=("spam", "ham")), encoder)
    step = {**TAUGHT, "labelWeight": "0"}  # from the teacher alone
    made = run_plan(
        brought(folder, classifier, texts_set(data_file), [step], task=TASK, maxModelLength=64), store
    )
    taught = store.open(made.steps[1].artifact).path
    assert list(hf.read_json(taught / hf.CONFIG)["id2label"].values()) == ["spam", "ham"]
    both = [
        (models.load(place), hf.load_tokenizer(place))
        for place in (store.open(classifier.artifact).path, taught)
    ]
    right = 0
    for label, text in texts[:60]:
        with torch.no_grad():
            said = [
                model.config.id2label[int(model(**tokenizer(text, return_tensors="pt")).logits[0].argmax())]
                for model, tokenizer in both
            ]
        right += said[0] == said[1] == label
    assert right > 54


def test_another_decoder_is_taught_and_quantised(
    store: Store, data_file: Path, model_folder: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    large = run_plan(plan_of(source={"uri": f"file:{model_folder}"}), store)
    folder = same_tokens(make_model(tmp_path / "small", texts, num_hidden_layers=2), model_folder)
    steps = [
        {"type": "Distill", "maxExamples": 48, "learningRate": "0.005"},
        {"type": "Quantize", "scheme": "W8A8"},
    ]
    made = run_plan(brought(folder, large, data_set(data_file), steps), store)
    assert [step.type for step in made.steps] == ["Fetch", "Distill", "Quantize"]
    assert made.parameters < large.parameters
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    with pytest.raises(
        InputError, match=r"spec\.lean\.source: its tokenizer is another.*write|name a model with"
    ):
        run_plan(brought(swapped(other), large, data_set(data_file), steps), store)
    # What asks no teacher may read its own tokens.
    alone = [{"type": "Heal", "labelWeight": "1", "maxExamples": 32}]
    assert run_plan(brought(other, large, data_set(data_file), alone), store).steps[1].type == "Heal"


def swapped(folder: Path) -> Path:
    """Give two words of a tokenizer each other's number: as many tokens, and others."""
    found = hf.read_json(folder / "tokenizer.json")
    words = found["model"]["vocab"]
    one, other = sorted(words, key=words.__getitem__)[-2:]
    words[one], words[other] = words[other], words[one]
    hf.write_json(folder / "tokenizer.json", found)
    return folder


def test_an_encoder_with_other_tokens_is_refused_before_any_work(
    store: Store, encoder: Path, classifier: CompressResult, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:  # fmt: skip
    folder = swapped(same_tokens(make_encoder(tmp_path / "bert", texts), encoder))
    plan = brought(folder, classifier, texts_set(data_file), [TAUGHT], task=TASK, maxModelLength=64)
    before = len(list((store.root / "objects").iterdir()))
    with pytest.raises(
        InputError, match=r"spec\.lean\.source: its tokenizer is another than the large model's"
    ):
        run_plan(plan, store)
    # The fetched source, and nothing that was made of it.
    assert len(list((store.root / "objects").iterdir())) <= before + 1


def test_without_a_step_that_makes_a_head_it_needs_one(
    store: Store, encoder: Path, classifier: CompressResult, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:  # fmt: skip
    folder = same_tokens(make_encoder(tmp_path / "bert", texts), encoder)
    plan = brought(folder, classifier, texts_set(data_file), [{"type": "Trim"}], task=TASK, maxModelLength=64)
    with pytest.raises(InputError, match=r"no classification head; add lean\.steps with a Distill"):
        run_plan(plan, store)
