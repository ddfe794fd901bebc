"""Encoders with fewer neurons: smaller files, the choice and the correction that were meant, the same bits after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import plan_of, run_apart, run_plan
from encoder_making import FAMILIES, large_plan, make_encoder, sentence_encoder, student_plan, vectors_fields
from safetensors.torch import load_file
from step_alone import killed_and_whole, rows_of

from leanmodel_api.errors import InputError
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.classifiers import models
from leanmodel_compression.classifiers.shapes import FEEDS, encoder_shape
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]

NEURONS = {"type": "Prune", "method": "Neurons", "ratio": "0.5", "samples": 16}
NARROWED = [name for name in FAMILIES if name.lower() in FEEDS]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("neurons") / "store")


@pytest.fixture(scope="module")
def large(
    store: Store, tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]], data_file: Path
) -> CompressResult:
    """A fine-tuned tiny BERT."""
    folder = make_encoder(tmp_path_factory.mktemp("encoder") / "bert", texts, layers=4)
    return run_plan(large_plan(folder, data_file), store)


def tensors(store: Store, digest: str) -> dict[str, Any]:
    return dict(load_file(str(store.open(digest).path / hf.WEIGHTS)))


@pytest.mark.parametrize("family", NARROWED)
def test_every_family_becomes_narrower_and_loads_as_any_other(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path, family: str
) -> None:
    folder = make_encoder(tmp_path / family, texts, family, labels=("ham", "spam"))
    whole = run_plan(large_plan(folder, data_file, finetune=None), store)
    made = run_apart(student_plan(whole, data_file, [NEURONS]), store)
    step = made.steps[0]
    assert "32 of 64 stay in each of 2 layers" in step.detail and made.bytes < whole.bytes
    assert step.figures["peakAnonymousBytes"] <= step.estimated_memory_bytes
    folders = [store.open(digest).path for digest in (whole.artifact, step.artifact)]
    shapes = [encoder_shape(hf.read_json(one / hf.CONFIG)) for one in folders]
    assert [one.intermediate for one in shapes] == [64, 32]
    before, after = (load_file(str(one / hf.WEIGHTS)) for one in folders)
    lost = sum(tensor.numel() for tensor in before.values()) - sum(
        tensor.numel() for tensor in after.values()
    )
    assert shapes[0].parameters - shapes[1].parameters == lost > 0
    # What the chosen neurons are made of stays bit for bit.
    reads, counted = FEEDS[family.lower()][0], 0
    for name in (name for name in before if name.endswith(f".{reads}.weight")):
        rows = {tuple(row.tolist()) for row in before[name]}
        assert all(tuple(row.tolist()) in rows for row in after[name])
        counted += 1
    assert step.modules_changed == 2 * counted
    with torch.no_grad():
        model = models.load(folders[1])
        assert torch.isfinite(model(input_ids=torch.tensor([[2, 7, 9, 3]])).logits).all()


def test_the_neurons_that_add_least_go_and_the_others_make_up_for_them(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    plan = student_plan(large, data_file, [NEURONS])
    made = run_plan(plan, store)
    before, after = tensors(store, large.artifact), tensors(store, made.steps[0].artifact)
    model = models.load(store.open(large.artifact).path)
    layer = model.bert.encoder.layer[0]
    inputs: list[Any] = []
    handle = layer.output.dense.register_forward_pre_hook(lambda _module, args: inputs.append(args[0][0]))
    rows = rows_of(plan, store, large).train[:16]
    with torch.no_grad():
        for row in rows:
            model(input_ids=torch.tensor([row.ids[: row.first]]))
    handle.remove()
    seen = torch.cat(inputs)
    weight = before["bert.encoder.layer.0.output.dense.weight"]
    added = seen.norm(dim=0) * weight.norm(dim=0)
    stays = added.topk(32).indices.sort().values
    rows_before = before["bert.encoder.layer.0.intermediate.dense.weight"]
    assert torch.equal(after["bert.encoder.layer.0.intermediate.dense.weight"], rows_before[stays])
    wanted = seen @ weight.T
    refitted = seen[:, stays] @ after["bert.encoder.layer.0.output.dense.weight"].T
    plainly = seen[:, stays] @ weight[:, stays].T
    assert (refitted - wanted).norm() < 0.9 * (plainly - wanted).norm()


def test_later_layers_are_cut_on_what_the_cut_ones_give(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    made = run_plan(student_plan(large, data_file, [NEURONS, {"type": "Export", "precision": "Int8"}]), store)
    assert [step.type for step in made.steps] == ["Prune", "Export"]
    assert made.steps[0].figures["validationAccuracy"] > 0.8
    assert made.steps[1].figures["validationAccuracy"] > 0.8


def test_a_killed_cut_goes_on_at_the_layer_where_it_was(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path
) -> None:
    plan = student_plan(large, data_file, [NEURONS])
    assert killed_and_whole(plan, store, large, tmp_path, 2) == (2, True)


def test_sentence_encoders_are_cut_and_taught_again(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = sentence_encoder(tmp_path / "encoder", texts)
    fields = vectors_fields(data_file)
    whole = run_plan(plan_of(source={"uri": f"file:{folder}"}, **fields), store)
    taught = {"type": "Distill", "objectives": ["Embeddings"], "learningRate": "0.005", "maxLength": 32}
    plan = plan_of(
        role="Lean", base=whole.artifact, teacher=whole.artifact, steps=[NEURONS, taught], **fields
    )
    made = run_plan(plan, store)
    assert [step.type for step in made.steps] == ["Prune", "Distill", "Export"] and made.bytes < whole.bytes
    assert made.steps[1].figures["validationCosine"] > 0.9


@pytest.mark.parametrize(
    ("family", "step", "words"),
    [
        ("SqueezeBert", NEURONS, r"method: Neurons of a SqueezeBert.*convolutions in groups.*write Depth"),
        ("Bert", {**NEURONS, "ratio": "0.1"}, r"ratio: 0.1 takes none of 64 neurons"),
        (
            "Bert",
            {**NEURONS, "method": "Heads"},
            r"method: found Heads, which encoders do not have. write Depth or Neurons",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused_before_any_work(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path, family: str, step: dict[str, Any], words: str
) -> None:  # fmt: skip
    folder = make_encoder(tmp_path / family, texts, family, labels=("ham", "spam"))
    whole = run_plan(large_plan(folder, data_file, finetune=None), store)
    with pytest.raises(InputError, match=words):
        run_plan(student_plan(whole, data_file, [step]), store)
