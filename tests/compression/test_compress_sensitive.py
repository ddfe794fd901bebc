"""Layers that rounding hurts most stay as they are: found by measuring, found again after a kill, and refused where none is left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, plan_of, run_plan
from safetensors.torch import load_file, save_file
from step_alone import killed_and_whole, rows_of

from leanmodel_api.errors import InputError
from leanmodel_api.plan import CompressResult
from leanmodel_api.steps import Quantize
from leanmodel_compression import hf
from leanmodel_compression.shapes import from_config
from leanmodel_compression.steps import sensitive
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

STEP = {
    "type": "Quantize",
    "scheme": "W4A16",
    "algorithm": "RTN",
    "groupSize": 32,
    "samples": 24,
    "ignoreSensitive": 1,
}
DELICATE = 2


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("sensitive") / "store")


@pytest.fixture(scope="module")
def large(
    store: Store, model_folder: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> CompressResult:
    """A trained model that answers as before, and of which one layer has a weight in each group that leaves the others no bits."""
    tuned = {"epochs": "4", "learningRate": "0.01"}
    plan = plan_of(source={"uri": f"file:{model_folder}"}, dataSets=[data_set(data_file)], finetune=tuned)
    trained = store.open(run_plan(plan, store).artifact).path
    folder = tmp_path_factory.mktemp("delicate") / "model"
    shutil.copytree(trained, folder)
    tensors = load_file(str(folder / hf.WEIGHTS))
    layer = f"model.layers.{DELICATE}.mlp"
    tensors[f"{layer}.down_proj.weight"][:, ::32] *= 256
    tensors[f"{layer}.up_proj.weight"][::32] /= 256
    save_file(tensors, str(folder / hf.WEIGHTS), metadata={"format": "pt"})
    return run_plan(plan_of(source={"uri": f"file:{folder}"}), store)


@pytest.mark.parametrize("more", [{}, {"algorithm": "GPTQ"}], ids=["RTN", "GPTQ"])
def test_the_layer_that_minds_most_keeps_its_weights(
    store: Store, large: CompressResult, data_file: Path, more: dict[str, Any]
) -> None:
    made = run_plan(lean_plan(large, data_file, [{**STEP, **more}]), store)
    (step,) = made.steps
    assert step.modules_changed == 21 and "1 sensitive decoder layers left as they are" in step.detail
    before, after = (load_file(str(store.open(one.artifact).path / hf.WEIGHTS)) for one in (large, made))
    kept = {name for name in after if name.endswith("_proj.weight")}
    assert kept == {
        name for name in before if f"layers.{DELICATE}." in name and name.endswith("_proj.weight")
    }
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert step.figures[f"riseOfLayer{DELICATE}"] > 0
    whole = run_plan(lean_plan(large, data_file, [{**STEP, **more, "ignoreSensitive": None}]), store)
    assert whole.steps[0].modules_changed == 28 and whole.bytes < made.bytes < large.bytes
    assert step.figures["validationLoss"] < whole.steps[0].figures["validationLoss"]


def test_a_killed_measurement_goes_on_and_ends_with_the_same_bytes(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path
) -> None:
    assert killed_and_whole(lean_plan(large, data_file, [STEP]), store, large, tmp_path, 2) == (None, True)


def test_what_was_measured_before_a_kill_is_not_measured_again(
    store: Store, large: CompressResult, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(lean_plan(large, data_file, []), store, large).train[:8]
    folder = store.open(large.artifact).path
    model, shape = hf.load_model(folder), from_config(hf.read_json(folder / hf.CONFIG))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    known: dict[str, float] = {}
    told = list(
        sensitive.rises(model, shape, Quantize.model_validate(STEP), rows, 32, lambda *_: None, known)
    )
    assert [one.layer for one in told] == [0, 1, 2, 3] and max(
        told, key=lambda one: one.rise
    ).layer == DELICATE
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    again: list[int] = []
    monkeypatch.setattr(sensitive, "loss", lambda *_: again.append(1) or 0.0)
    del known["3"]
    more = list(
        sensitive.rises(model, shape, Quantize.model_validate(STEP), rows, 32, lambda *_: None, known)
    )
    assert more[:3] == told[:3] and again == [1]


def test_a_layer_must_be_left(store: Store, large: CompressResult, data_file: Path) -> None:
    with pytest.raises(InputError) as error:
        run_plan(lean_plan(large, data_file, [{**STEP, "ignoreSensitive": 4}]), store)
    assert "steps[0].ignoreSensitive: found 4 of 4 decoder layers that are to be quantised" in str(
        error.value
    )
    assert "write 3 or fewer" in str(error.value)
