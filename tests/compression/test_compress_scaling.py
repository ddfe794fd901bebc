"""SmoothQuant and AWQ: the model stays what it was but for rounding, rounds better, and a killed run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import lean_plan, make_model, plan_of, run_apart, run_plan
from safetensors.torch import load_file, save_file
from step_alone import killed_and_whole, rows_of

from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]

SMOOTH = {"type": "Quantize", "scheme": "W8A8", "algorithm": "SmoothQuant", "samples": 16}
AWQ = {"type": "Quantize", "scheme": "W4A16", "algorithm": "AWQ", "samples": 6}
SIZES = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
LOUD = (3, 17)
"""Channels whose norm is made large, as in the models for which SmoothQuant was made."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("scaling") / "store")


@pytest.fixture(scope="module")
def large(
    store: Store, tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]
) -> CompressResult:
    """A model with two loud channels, which the layers that read them take back."""
    folder = make_model(tmp_path_factory.mktemp("loud") / "model", texts, **SIZES)
    tensors = load_file(str(folder / hf.WEIGHTS))
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight"):
            tensor[list(LOUD)] *= 64
        elif name.endswith(
            ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")
        ):
            tensor[:, list(LOUD)] /= 16
    save_file(tensors, str(folder / hf.WEIGHTS), metadata={"format": "pt"})
    return run_plan(plan_of(source={"uri": f"file:{folder}"}), store)


def distance(store: Store, data_file: Path, one: CompressResult, other: CompressResult) -> float:
    """Mean divergence of two models' next-token distributions on rows that no calibration saw."""
    models = [hf.load_model(store.open(made.artifact).path) for made in (one, other)]
    total, rows = 0.0, rows_of(lean_plan(one, data_file, []), store, one).validation[:12]
    with torch.no_grad():
        for row in rows:
            told, found = (model(torch.tensor([row.ids])).logits[0].log_softmax(-1) for model in models)
            total += float(torch.nn.functional.kl_div(found, told, log_target=True, reduction="batchmean"))
    return total / len(rows)


@pytest.mark.parametrize("settings", [SMOOTH, AWQ], ids=["smoothquant", "awq"])
def test_it_is_nearer_to_the_model_than_rounding_alone(
    store: Store, large: CompressResult, data_file: Path, settings: dict[str, Any]
) -> None:
    made = run_apart(lean_plan(large, data_file, [settings]), store)
    plain = run_plan(lean_plan(large, data_file, [{**settings, "algorithm": "RTN"}]), store)
    step = made.steps[0]
    assert step.modules_changed == 28 and settings["algorithm"] in step.detail
    assert step.figures["peakAnonymousBytes"] <= step.estimated_memory_bytes
    assert made.bytes == pytest.approx(plain.bytes, rel=0.01) and made.bytes < large.bytes
    assert distance(store, data_file, large, made) < 0.8 * distance(store, data_file, large, plain)


def test_smoothing_alone_changes_nothing_that_the_model_says(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    # Attention and MLP inputs are scaled in every layer, and a single layer is rounded.
    step = {**SMOOTH, "targets": ["re:.*layers[.]3[.]mlp[.]down_proj"]}
    made = run_plan(lean_plan(large, data_file, [step]), store)
    assert made.steps[0].modules_changed == 1
    before, after = (load_file(str(store.open(m.artifact).path / hf.WEIGHTS)) for m in (large, made))
    loud = "model.layers.0.input_layernorm.weight"
    quiet = [index for index in range(64) if index not in LOUD]
    scales = before[loud].float() / after[loud].float()
    assert scales[list(LOUD)].min() > 2 * scales[quiet].max()
    assert distance(store, data_file, large, made) < 0.01


@pytest.mark.parametrize("settings", [SMOOTH, AWQ], ids=["smoothquant", "awq"])
def test_a_killed_calibration_goes_on_at_the_layer_where_it_was(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    assert killed_and_whole(lean_plan(large, data_file, [settings]), store, large, tmp_path, 2) == (2, True)


def test_zeros_stay_zeros(store: Store, large: CompressResult, data_file: Path) -> None:
    steps = [{"type": "Prune", "method": "Magnitude", "structure": "2:4"}, SMOOTH]
    made = run_plan(lean_plan(large, data_file, steps), store)
    tensors = load_file(str(store.open(made.artifact).path / hf.WEIGHTS))
    integers = [tensor for tensor in tensors.values() if tensor.dtype == torch.int8]
    assert len(integers) == 28
    assert all(float((tensor == 0).float().mean()) >= 0.5 for tensor in integers)
