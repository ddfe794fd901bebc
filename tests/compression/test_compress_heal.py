"""Healing: what is left learns, zeros stay zeros, a stopped training ends with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, plan_of, run_apart, run_plan
from safetensors.torch import load_file
from step_alone import stopped_and_whole

from leanmodel_api.plan import CompressResult
from leanmodel_compression import encode, hf
from leanmodel_compression.shapes import from_config
from leanmodel_compression.steps import masks, step_of
from leanmodel_compression.steps.protocol import Place, Task
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

FOURS = {"type": "Prune", "method": "Magnitude", "structure": "2:4"}
HEAL = {"type": "Heal", "epochs": "4", "learningRate": "0.01", "checkpointSteps": 4}
LORA = {**HEAL, "method": "LoRA", "loraRank": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("heal") / "store")


@pytest.fixture(scope="module")
def tuned(store: Store, model_folder: Path, data_file: Path) -> CompressResult:
    """The tiny model after it learned the task: a teacher that is worth healing towards."""
    settings = {"epochs": "4", "learningRate": "0.01"}
    source = {"uri": f"file:{model_folder}"}
    return run_plan(plan_of(source=source, dataSets=[data_set(data_file)], finetune=settings), store)


def weights(store: Store, digest: str) -> dict[str, torch.Tensor]:
    return load_file(str(store.open(digest).path / hf.WEIGHTS))


@pytest.mark.parametrize("heal", [HEAL, LORA], ids=["full", "lora"])
def test_healing_keeps_every_zero_and_mends_the_rest(
    store: Store, tuned: CompressResult, data_file: Path, heal: dict[str, Any]
) -> None:
    made = run_apart(lean_plan(tuned, data_file, [FOURS, heal]), store)
    pruned, healed = made.steps
    assert healed.figures["validationLoss"] < 0.9 * pruned.figures["validationLoss"]
    assert healed.figures["zeroShare"] == pytest.approx(pruned.figures["zeroShare"])
    assert healed.figures["peakAnonymousBytes"] <= healed.estimated_memory_bytes
    assert "50.0% of the weights kept at zero" in healed.detail
    before, after = weights(store, pruned.artifact), weights(store, healed.artifact)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    projections = {name for name in after if name.endswith("_proj.weight")}
    assert projections <= changed and "model.embed_tokens.weight" not in changed
    assert (heal is HEAL) == any("norm" in name for name in changed)
    for name in projections:
        assert masks.is_two_of_four(after[name])
        assert torch.equal(before[name] == 0, after[name] == 0), name


def test_a_model_without_zeros_is_healed_too(store: Store, tuned: CompressResult, data_file: Path) -> None:
    made = run_plan(lean_plan(tuned, data_file, [{"type": "Prune", "keepLayers": 3}, LORA]), store)
    pruned, healed = made.steps
    assert healed.figures["validationLoss"] < pruned.figures["validationLoss"]
    assert healed.figures["zeroShare"] == 0 and "zero" not in healed.detail
    assert healed.modules_changed == 3 * 7


def test_zeros_go_through_healing_into_integers(store: Store, tuned: CompressResult, data_file: Path) -> None:
    steps = [FOURS, {**LORA, "epochs": "1"}, {"type": "Quantize", "scheme": "W8A8"}]
    made = run_plan(lean_plan(tuned, data_file, steps), store)
    found = [w for name, w in weights(store, made.artifact).items() if name.endswith("_proj.weight")]
    assert len(found) == 28 and all(w.dtype == torch.int8 and masks.is_two_of_four(w) for w in found)


def test_after_a_trim_it_learns_from_labels_and_asks_no_teacher(
    store: Store, tuned: CompressResult, data_file: Path
) -> None:
    steps = [{"type": "Trim"}, {**LORA, "epochs": "1", "labelWeight": "1"}]
    made = run_plan(lean_plan(tuned, data_file, steps), store)
    assert [step.type for step in made.steps] == ["Trim", "Heal"]
    assert len(weights(store, made.artifact)["model.embed_tokens.weight"]) == made.steps[0].figures["tokens"]


class StoppedError(Exception):
    """Stands for a kill: autograd does not work in a forked child, which could be killed for good."""


@pytest.mark.parametrize("heal", [HEAL, LORA], ids=["full", "lora"])
def test_a_stopped_healing_ends_with_the_same_bits(
    store: Store, tuned: CompressResult, data_file: Path, tmp_path: Path, heal: dict[str, Any]
) -> None:
    plan = lean_plan(tuned, data_file, [FOURS, heal])
    pruned = run_plan(plan.model_copy(update={"steps": plan.steps[:1]}), store)
    source, teacher = (store.open(digest).path for digest in (pruned.artifact, tuned.artifact))
    shape = from_config(hf.read_json(source / hf.CONFIG))
    parts = datasets.load(plan.data_sets[0], Path("."), store)
    rows = encode.encode_parts(hf.load_tokenizer(source), parts.train, parts.validation)
    task = Task(plan.steps[1], "spec.lean.steps[1]", shape, 0, rows, shape)

    def run(scratch: str, stop_at: str | None) -> tuple[int | None, bytes]:
        target = tmp_path / f"{scratch}-{stop_at is None}"
        target.mkdir()

        def progress(_done: float, _total: float, message: str) -> None:
            if stop_at is not None and message.startswith(stop_at):
                raise StoppedError

        place = Place(source, target, tmp_path / scratch, teacher, "b" * 64, progress)
        outcome = step_of(task.spec).run(task, place)
        return outcome.resumed_at, (target / hf.WEIGHTS).read_bytes()

    with pytest.raises(StoppedError):
        run("stopped", "optimiser step 11/")
    resumed_at, again = run("stopped", None)
    _, once = run("whole", None)
    assert resumed_at == 8 and again == once


GRADUAL = {**HEAL, "labelWeight": "1", "pruneTo": "0.6"}


@pytest.mark.parametrize("by", ["Magnitude", pytest.param("Movement", marks=pytest.mark.long)])
def test_weights_go_bit_by_bit_and_what_is_left_learns(
    store: Store, tuned: CompressResult, data_file: Path, by: str
) -> None:
    at_once = {"type": "Prune", "method": "Magnitude", "ratio": "0.6"}
    made = run_plan(lean_plan(tuned, data_file, [{**GRADUAL, "pruneBy": by}]), store)
    (step,) = made.steps
    bare = run_plan(lean_plan(tuned, data_file, [at_once]), store).steps[0]
    assert step.figures["validationLoss"] < 0.9 * bare.figures["validationLoss"]
    assert step.figures["zeroShare"] == pytest.approx(0.6, abs=0.001)
    assert "pruned on the way until 60.0%" in step.detail and made.bytes == tuned.bytes
    for name, weight in weights(store, made.artifact).items():
        if name.endswith("_proj.weight"):
            assert float((weight == 0).float().mean()) == pytest.approx(0.6, abs=0.002), name


@pytest.mark.parametrize("by", [pytest.param("Magnitude", marks=pytest.mark.long), "Movement"])
def test_a_stopped_gradual_pruning_ends_with_the_same_bits(
    store: Store, tuned: CompressResult, data_file: Path, tmp_path: Path, by: str
) -> None:
    plan = lean_plan(tuned, data_file, [{**GRADUAL, "epochs": "2", "maxExamples": 96, "pruneBy": by}])
    resumed, same = stopped_and_whole(plan, store, tuned, tmp_path, 7)
    assert resumed == 4 and same
