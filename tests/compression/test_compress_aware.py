"""Quantisation-aware training: what Quantize stores afterwards is, bit for bit, what was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, make_model, plan_of, run_plan
from safetensors.torch import load_file
from step_alone import stopped_and_whole

from leanmodel_api.errors import InputError
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.shapes import from_config, targeted
from leanmodel_compression.steps import grid
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

TRAINING = {"epochs": "2", "learningRate": "0.003", "maxLength": 64, "checkpointSteps": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("aware") / "store")


@pytest.fixture(scope="module")
def start(store: Store, model_folder: Path, data_file: Path) -> CompressResult:
    tuned = {"epochs": "6", "learningRate": "0.005", "maxLength": 64}
    sets = [data_set(data_file)]
    return run_plan(plan_of(source={"uri": f"file:{model_folder}"}, finetune=tuned, dataSets=sets), store)


def chain(scheme: str, kind: str = "Heal", aware: bool = True) -> list[dict[str, Any]]:
    training = {"type": kind, **TRAINING, **({"quantizationAware": scheme} if aware else {})}
    return [training, {"type": "Quantize", "scheme": scheme}]


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [
        ("W4A16", "Heal"),
        pytest.param("W8A8", "Distill", marks=pytest.mark.long),
        pytest.param("W8A16", "Distill", marks=pytest.mark.long),
    ],
)
def test_what_is_stored_is_what_was_trained_with(
    store: Store, start: CompressResult, data_file: Path, scheme: str, kind: str
) -> None:
    made = run_plan(lean_plan(start, data_file, chain(scheme, kind)), store)
    assert f"aware of {scheme}" in made.steps[0].detail
    floats, served = (store.open(step.artifact).path for step in made.steps)
    shape = from_config(hf.read_json(floats / hf.CONFIG))
    weights, stored = load_file(str(floats / hf.WEIGHTS)), load_file(str(served / hf.WEIGHTS))
    group = 32 if scheme == "W4A16" else None
    names = [linear.name for linear in targeted(shape, ["Linear"], ["lm_head"])]
    assert len(names) == 28
    for name in names:
        wanted = grid.fake(weights[f"{name}.weight"].float(), grid.BITS[scheme], group)
        assert torch.equal(expanded(stored, name, scheme), wanted), name


def expanded(stored: dict[str, torch.Tensor], name: str, scheme: str) -> torch.Tensor:
    """Return a stored layer's integers times their scales, in float32."""
    scale = stored[f"{name}.weight_scale"].float()
    if scheme == "W8A8":
        return stored[f"{name}.weight"].float() * scale
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    size = torch.Size(stored[f"{name}.weight_shape"].tolist())
    integers = unpack_from_int32(stored[f"{name}.weight_packed"], grid.BITS[scheme], size).float()
    if scheme == "W8A16":
        return integers * scale
    return (integers.unflatten(-1, (-1, 32)) * scale[..., None]).flatten(-2)


@pytest.mark.long
def test_knowing_of_four_bits_beats_not_knowing(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "model", texts, num_hidden_layers=2)
    tuned = {"epochs": "6", "learningRate": "0.005", "maxLength": 64}
    source, sets = {"uri": f"file:{folder}"}, [data_set(data_file)]
    start = run_plan(plan_of(source=source, finetune=tuned, dataSets=sets), store)
    losses = {}
    for aware in (True, False):
        steps = chain("W4A16", aware=aware)
        steps[0] |= {"learningRate": "0.002", "epochs": "4", "labelWeight": "1"}
        made = run_plan(lean_plan(start, data_file, steps), store)
        losses[aware] = made.steps[1].figures["validationLoss"]
    assert losses[True] < losses[False], losses


@pytest.mark.long
def test_a_stopped_training_ends_with_the_same_bytes(
    store: Store, start: CompressResult, data_file: Path, tmp_path: Path
) -> None:
    steps = chain("W4A16")
    steps[0] |= {"labelWeight": "1", "maxExamples": 96}
    resumed, same = stopped_and_whole(lean_plan(start, data_file, steps), store, start, tmp_path, 7)
    assert resumed == 6 and same


def test_a_training_without_its_quantize_is_refused(
    store: Store, start: CompressResult, data_file: Path
) -> None:
    with pytest.raises(
        InputError, match=r"steps\[0\].quantizationAware: .* put {type: Quantize, scheme: W8A8}"
    ):
        run_plan(lean_plan(start, data_file, chain("W8A8")[:1]), store)
