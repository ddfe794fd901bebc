"""Distillation by attention relations, layer maps and early stopping, on tiny encoders and a tiny decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import EVERY_LINE, Process, data_set, plan_of, run_plan
from encoder_making import FAMILIES, early_plan, large_plan, make_encoder

from leanmodel_api.errors import InputError
from leanmodel_api.parts import Example
from leanmodel_api.steps import Distill, Finetune, Prune
from leanmodel_compression import hf
from leanmodel_compression.batches import Rows
from leanmodel_compression.classifiers import models, rows
from leanmodel_compression.classifiers.shapes import encoder_shape
from leanmodel_compression.steps import ENCODERS
from leanmodel_compression.steps.protocol import Outcome, Place, Task
from leanmodel_compression.steps.relations import Recorder, even, relation_loss
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]
PRUNE = ("Prune", Prune(type="Prune", keep_layers=2, selection="Alternate"))
DISTILL = {"type": "Distill", "learningRate": "0.005", "epochs": "2", "maxLength": 32, "checkpointSteps": 4}
RELATIONS = {**DISTILL, "objectives": ["Attention"], "labelWeight": "0"}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> tuple[Path, Rows]:
    """A fine-tuned encoder of four layers, and the rows that its tokenizer makes."""
    base = tmp_path_factory.mktemp("encoder")
    folder = make_encoder(base / "bert", texts, layers=4, labels=("ham", "spam"))
    examples = [Example(id=str(at), text=text, answer=label) for at, (label, text) in enumerate(texts)]
    found = rows.encode_all(hf.load_tokenizer(folder), examples, ("ham", "spam"))
    parts = Rows(found[:160], found[160:])
    tuned = Finetune(epochs="4", learning_rate="0.01", max_length=32)
    return made(base, folder, folder, parts, [("Finetune", tuned)])[0][0], parts


def made(
    base: Path, source: Path, teacher: Path, parts: Rows, specs: list[tuple[str, Any]]
) -> list[tuple[Path, Outcome]]:
    """Run steps one after the other, without the Job and its exports; return folder and outcome of each."""
    found = []
    for number, (name, spec) in enumerate(specs):
        shape = encoder_shape(hf.read_json(source / hf.CONFIG))
        of = encoder_shape(hf.read_json(teacher / hf.CONFIG))
        task = Task(spec, f"spec.lean.steps[{number}]", shape, 0, parts, of, labels=("ham", "spam"))
        assert ENCODERS[name].issues(task) == []
        target = base / f"{number}-{name}"
        target.mkdir(parents=True)
        place = Place(source, target, base / f"scratch-{number}", teacher, name * 4, lambda *_: None)
        found.append((target, ENCODERS[name].run(task, place)))
        source = target
    return found


def distill(**more: Any) -> tuple[str, Any]:
    return "Distill", Distill.model_validate({**DISTILL, **more})


def apart(student: Path, teacher: Path, pairs: list[tuple[int, int]], heads: int) -> float:
    """Return the relation loss of two models on seeded texts of random tokens."""
    one, other = models.load(student), models.load(teacher)
    mine, theirs = Recorder(one, {a for a, _ in pairs}), Recorder(other, {b for _, b in pairs})
    ids = torch.randint(5, 100, (8, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one(input_ids=ids), other(input_ids=ids)
    a, b = mine.take(), theirs.take()
    mask = torch.ones_like(ids)
    ours, wanted = [a[i] for i, _ in pairs], [b[i] for _, i in pairs]
    return float(relation_loss(ours, wanted, mask, even(mask), heads))


def test_relations_come_closer_and_then_the_task_is_taught(seen: tuple[Path, Rows], tmp_path: Path) -> None:
    big, parts = seen
    general = distill(objectives=["Attention"], labelWeight="0", epochs="10")
    then = distill(objectives=["Logits", "Attention"], attentionWeight="0.5", relationHeads=4)
    (cut, _), (first, one), (last, two) = made(tmp_path, big, big, parts, [PRUNE, general, then])
    assert apart(first, big, [(1, 3)], 2) < apart(cut, big, [(1, 3)], 2) / 2
    assert one.detail.startswith("Attention, ") and two.detail.startswith("Logits, Attention, ")
    assert apart(last, big, [(1, 3)], 4) < apart(cut, big, [(1, 3)], 4)
    model = models.load(last)
    ids, mask, wanted = models.collate(parts.validation, range(len(parts.validation)))
    with torch.no_grad():
        right = (model(input_ids=ids, attention_mask=mask).logits.argmax(-1) == wanted).float().mean()
    assert float(right) > 0.85


def test_a_layer_map_says_which_layers_are_held_against_each_other(
    seen: tuple[Path, Rows], tmp_path: Path
) -> None:
    big, parts = seen
    mapped = distill(
        objectives=["Attention"], labelWeight="0", epochs="10", layerMap=[{"student": 0, "teacher": 0}]
    )
    (cut, _), (after, _) = made(tmp_path, big, big, parts, [PRUNE, mapped])
    assert apart(after, big, [(0, 0)], 2) < apart(cut, big, [(0, 0)], 2) / 2


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"Bert"}))
def test_queries_keys_and_values_are_found_in_every_family(
    family: str, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Softmax of the scaled products of recorded queries and keys is the model's own attention."""
    folder = make_encoder(tmp_path / family, texts, family, labels=("ham", "spam"))
    model = models.load(folder)
    model.set_attn_implementation("eager")
    recorder = Recorder(model, {0, 1})
    ids = torch.randint(5, 100, (3, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True)
    for layer, (queries, keys, values) in recorder.take().items():
        assert queries.shape == keys.shape == values.shape[:2] + queries.shape[2:]
        cut = [part.reshape(3, 7, 2, -1).transpose(1, 2) for part in (queries, keys)]
        scores = torch.softmax(cut[0] @ cut[1].transpose(-1, -2) / cut[0].shape[-1] ** 0.5, -1)
        # SqueezeBERT gives its attentions before the softmax.
        wanted = told.attentions[layer].softmax(-1) if family == "SqueezeBert" else told.attentions[layer]
        assert torch.allclose(scores, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({**RELATIONS, "relationHeads": 3}, "steps[0].relationHeads: 3 heads do not divide 32; write one of 1, 2, 4, 8"),
        ({**RELATIONS, "layerMap": [{"student": 0, "teacher": 4}]}, "steps[0].layerMap[0].teacher: found 4, and the teacher has layers 0 to 3"),
        ({**DISTILL, "earlyStopping": {"patience": 1}}, "steps[0].earlyStopping: the validation part has 5 rows with an answer"),
    ],
    ids=["heads that do not divide", "a layer that is not there", "too few rows to stop by"],
)  # fmt: skip
def test_what_cannot_be_matched_is_refused_before_any_work(
    step: dict[str, Any], words: str, store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:  # fmt: skip
    folder = make_encoder(tmp_path / "bert", texts, layers=4)
    later = early_plan(data_file, [step])
    data = later.data_sets[0].model_dump(mode="json", by_alias=True, exclude_none=True)
    data["split"]["validation"] = "0.02"
    plan = large_plan(folder, data_file, dataSets=[data])
    with pytest.raises(InputError) as error:
        run_plan(plan, store, [later.model_copy(update={"data_sets": plan.data_sets})])
    assert words in str(error.value)


STOPPED = {"epochs": "60", "learningRate": "0.02", "earlyStopping": {"patience": 3, "everySteps": 4},
           "checkpointSteps": 6, "maxLength": 32}  # fmt: skip


def test_a_classifier_stops_early_and_keeps_its_best_weights_also_when_it_is_killed(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    folder = make_encoder(tmp_path / "bert", texts)
    plan = large_plan(folder, data_file, finetune=STOPPED)
    made = run_plan(plan, store)
    figures = made.steps[1].figures
    assert figures["optimiserSteps"] == figures["bestStep"] + 12 < 60 * 6
    assert figures["bestStep"] % 4 == 0
    # What is kept is what was measured: the validation part is small enough to be looked at whole afterwards.
    assert figures["validationLoss"] == pytest.approx(figures["bestValidationLoss"], rel=1e-4)
    assert f"(the weights after {figures['bestStep']:.0f} are kept)" in made.steps[1].detail
    other = Store(tmp_path / "killed")
    first = Process(plan, other.root, tmp_path / "first", *EVERY_LINE)
    assert first.follow(lambda line: line.message.startswith("optimiser step ") and line.done >= 8)
    first.kill()
    second = Process(plan, other.root, tmp_path / "second")
    second.follow()
    again = second.made()
    assert again.artifact == made.artifact and (again.steps[1].resumed_at or 0) >= 6


def test_a_distillation_is_stopped_by_its_own_loss(seen: tuple[Path, Rows], tmp_path: Path) -> None:
    big, parts = seen
    step = distill(**{**STOPPED, "epochs": "8"}, objectives=["Logits", "Hidden", "Attention"])
    _, (_, outcome) = made(tmp_path, big, big, parts, [PRUNE, step])
    figures = outcome.figures
    assert 0 < figures["bestStep"] <= figures["optimiserSteps"] <= 8 * 10
    assert figures["bestValidationLoss"] < 0.5


def test_decoders_stop_early_in_finetune_and_distill(
    store: Store, model_folder: Path, data_file: Path
) -> None:
    """A look after each step and no patience: the first step that makes nothing better is the last."""
    stopped = {"epochs": "10", "learningRate": "0.05", "earlyStopping": {"patience": 1, "everySteps": 1}, "maxLength": 64}  # fmt: skip
    plan = plan_of(source={"uri": f"file:{model_folder}"}, finetune=stopped, dataSets=[data_set(data_file)])
    large = run_plan(plan, store)
    figures = large.steps[1].figures
    assert figures["optimiserSteps"] == figures["bestStep"] + 1 < 60
    assert figures["validationLoss"] == pytest.approx(figures["bestValidationLoss"], rel=0.05, abs=0.01)
    step = {**DISTILL, **stopped, "objectives": ["Logits"]}
    lean = plan_of(role="Lean", base=large.artifact, teacher=large.artifact, dataSets=[data_set(data_file)],
                   steps=[{"type": "Prune", "keepLayers": 2, "selection": "First"}, step])  # fmt: skip
    figures = run_plan(lean, store).steps[1].figures
    assert figures["optimiserSteps"] == figures["bestStep"] + 1 < 60
