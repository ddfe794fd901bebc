"""Weights to zero: which, how many, what stays, and that a killed calibration goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, make_model, plan_of, run_apart, run_plan
from safetensors.torch import load_file
from step_alone import killed_and_whole, rows_of

from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.steps import masks
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

METHODS = ("Magnitude", "Wanda", "SparseGPT")
HALF = {"type": "Prune", "ratio": "0.5", "samples": 8}
FOURS = {"type": "Prune", "structure": "2:4", "samples": 8}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("sparse") / "store")


@pytest.fixture(scope="module")
def large(store: Store, model_folder: Path) -> CompressResult:
    return run_plan(plan_of(source={"uri": f"file:{model_folder}"}), store)


def weights(store: Store, digest: str) -> dict[str, torch.Tensor]:
    return load_file(str(store.open(digest).path / hf.WEIGHTS))


def projections(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.endswith("_proj.weight")}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("settings", [HALF, FOURS], ids=["half", "2:4"])
def test_half_of_each_layer_is_zero_and_nothing_got_smaller(
    store: Store, large: CompressResult, data_file: Path, method: str, settings: dict[str, Any]
) -> None:
    made = run_apart(lean_plan(large, data_file, [{**settings, "method": method}]), store)
    step, before, after = made.steps[0], weights(store, large.artifact), weights(store, made.artifact)
    assert (made.bytes, made.parameters) == (large.bytes, large.parameters)
    assert step.modules_changed == 28 and "stored dense" in step.detail
    assert step.figures["zeroShare"] == pytest.approx(0.5, abs=0.01)
    assert step.figures["peakAnonymousBytes"] <= step.estimated_memory_bytes
    assert before.keys() == after.keys()
    for name, weight in after.items():
        if name not in projections(after):
            assert torch.equal(weight, before[name]), name
            continue
        assert float((weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01), name
        assert masks.is_two_of_four(weight) == (settings is FOURS), name
        stays = weight != 0
        # SparseGPT moves what stays; the others do not touch it.
        assert torch.equal(weight[stays], before[name][stays]) == (method != "SparseGPT"), name
    model = hf.load_model(store.open(made.artifact).path)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, after["model.layers.0.mlp.up_proj.weight"].float())  # fmt: skip


def test_magnitude_takes_the_smallest_of_each_layer(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    made = run_plan(lean_plan(large, data_file, [{**HALF, "ratio": "0.3", "method": "Magnitude"}]), store)
    before, after = weights(store, large.artifact), weights(store, made.artifact)
    for name in projections(after):
        gone = after[name] == 0
        assert int(gone.sum()) == int(0.3 * gone.numel())
        assert before[name][gone].abs().max() <= before[name][~gone].abs().min()


def test_wanda_weighs_by_the_inputs_that_calibration_saw(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    plan = lean_plan(large, data_file, [{**HALF, "method": "Wanda"}])
    made = run_plan(plan, store)
    model = hf.load_model(store.open(large.artifact).path)
    layer, seen = model.model.layers[0].self_attn.q_proj, []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0][0].detach()))
    with torch.no_grad():
        for row in rows_of(plan, store, large).train[:8]:
            model.model(torch.tensor([row.ids]))
    hook.remove()
    scores = layer.weight.abs() * torch.cat(seen).pow(2).sum(0).sqrt()
    after = weights(store, made.artifact)["model.layers.0.self_attn.q_proj.weight"]
    for score, row in zip(scores, after, strict=True):
        gone = row == 0
        assert int(gone.sum()) == 16
        assert score[gone].max() <= score[~gone].min() * (1 + 1e-4)


def test_sparsegpt_keeps_a_layers_output_nearer_than_wanda_and_that_than_magnitude(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "wide", texts, hidden_size=64, intermediate_size=128, head_dim=32)
    tuned = plan_of(
        source={"uri": f"file:{folder}"},
        dataSets=[data_set(data_file)],
        finetune={"epochs": "2", "learningRate": "0.01"},
    )
    start = run_plan(tuned, store)
    plan = lean_plan(start, data_file, [])
    model = hf.load_model(store.open(start.artifact).path)
    layer, seen = model.model.layers[0].self_attn.q_proj, []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0][0].detach()))
    with torch.no_grad():
        for row in rows_of(plan, store, start).train[:64]:
            model.model(torch.tensor([row.ids]))
    hook.remove()
    inputs, errors = torch.cat(seen), {}
    for method in METHODS:
        made = run_plan(lean_plan(start, data_file, [{**FOURS, "samples": 64, "method": method}]), store)
        cut = weights(store, made.artifact)["model.layers.0.self_attn.q_proj.weight"].float()
        errors[method] = float((inputs @ (layer.weight - cut).T).pow(2).sum())
    assert errors["SparseGPT"] < errors["Wanda"] < errors["Magnitude"]


@pytest.mark.parametrize("method", ["Magnitude", "Wanda"])
def test_exceptions_are_left_as_they_are(
    store: Store, large: CompressResult, data_file: Path, method: str
) -> None:
    step = {**HALF, "method": method, "targets": ["re:.*mlp.*"], "ignore": ["re:.*layers[.]2[.].*"]}
    made = run_plan(lean_plan(large, data_file, [step]), store)
    before, after = weights(store, large.artifact), weights(store, made.artifact)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {name for name in projections(after) if "mlp" in name and "layers.2." not in name}
    assert made.steps[0].modules_changed == len(changed) == 9


def test_rounding_to_nearest_keeps_the_zeros(store: Store, large: CompressResult, data_file: Path) -> None:
    steps = [{**FOURS, "method": "Magnitude"}, {"type": "Quantize", "scheme": "W8A8"}]
    made = run_plan(lean_plan(large, data_file, steps), store)
    after = projections(weights(store, made.artifact))
    assert len(after) == 28
    assert all(weight.dtype == torch.int8 and masks.is_two_of_four(weight) for weight in after.values())


@pytest.mark.parametrize("method", ["Wanda", "SparseGPT"])
def test_a_killed_calibration_goes_on_at_the_layer_where_it_was(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path, method: str
) -> None:
    plan = lean_plan(large, data_file, [{**FOURS, "method": method}])
    assert killed_and_whole(plan, store, large, tmp_path, 2) == (2, True)


def test_blocks_go_whole(store: Store, large: CompressResult, data_file: Path) -> None:
    step = {"type": "Prune", "method": "Magnitude", "ratio": "0.5", "structure": "Block", "blockSize": 8}
    made = run_plan(lean_plan(large, data_file, [step]), store)
    assert made.bytes == large.bytes and made.steps[0].figures["zeroShare"] == pytest.approx(0.5)
    assert "blocks of 8x8" in made.steps[0].detail
    for name, weight in projections(weights(store, made.artifact)).items():
        rows, columns = weight.shape
        parts = (weight == 0).reshape(rows // 8, 8, columns // 8, 8).float().mean((1, 3))
        assert bool(((parts == 0) | (parts == 1)).all()) and float(parts.mean()) == 0.5, name
