"""Shared layers: stored once, trained as one, and expanded again where nobody can share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, make_model, plan_of, run_plan
from safetensors.torch import load_file
from step_alone import alone, stopped_and_whole

from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.shapes import from_config
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

SHARE = {"type": "Share", "protectFirst": 0, "protectLast": 1, "layersPerGroup": 2}
HEAL = {"type": "Heal", "epochs": "2", "learningRate": "0.003", "maxLength": 64, "checkpointSteps": 2}
IDS = torch.tensor([[5, 9, 30, 17, 4]])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("share") / "store")


@pytest.fixture(scope="module")
def start(store: Store, model_folder: Path, data_file: Path) -> CompressResult:
    tuned = {"epochs": "6", "learningRate": "0.005", "maxLength": 64}
    sets = [data_set(data_file)]
    return run_plan(plan_of(source={"uri": f"file:{model_folder}"}, finetune=tuned, dataSets=sets), store)


@pytest.mark.parametrize(
    ("family", "init"),
    [
        ("Llama", "Mean"),
        pytest.param("Llama", "First", marks=pytest.mark.long),
        pytest.param("Qwen3", "Mean", marks=pytest.mark.long),
    ],
)
def test_a_group_is_stored_once_and_expanded_for_the_engine(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path, family: str, init: str
) -> None:
    folder = make_model(tmp_path / "model", texts, family, num_hidden_layers=5)
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    made = run_plan(lean_plan(start, data_file, [{**SHARE, "init": init}]), store)
    share, expand = made.steps
    before, shared, served = (store.open(d).path for d in (start.artifact, share.artifact, expand.artifact))
    # Groups (0, 1), (2, 3), and the last one by itself.
    assert hf.read_json(shared / hf.CONFIG)["shared_layers"] == [0, 0, 2, 2, 4]
    old, once, copied = (load_file(str(path / hf.WEIGHTS)) for path in (before, shared, served))
    assert not any(".layers.1." in name or ".layers.3." in name for name in once)
    for name in [name for name in once if ".layers.0." in name]:
        other = name.replace(".layers.0.", ".layers.1.")
        mean = (old[name].float() + old[other].float()) / 2
        wanted = mean.to(torch.bfloat16) if init == "Mean" else old[name]
        assert torch.equal(once[name], wanted) and torch.equal(copied[other], wanted)
    shape = from_config(hf.read_json(shared / hf.CONFIG))
    gone = sum(value.numel() for name, value in old.items() if ".layers.0." in name)
    assert share.parameters == start.parameters - 2 * gone and shape.layer_parameters <= gone
    # Claimed is what the engine gets.
    assert (made.parameters, made.bytes) == (start.parameters, expand.bytes) and share.bytes < expand.bytes
    assert expand.figures["sharedBytes"] == share.bytes
    assert hf.read_json(served / hf.CONFIG)["architectures"] == [f"{family}ForCausalLM"]
    models = [hf.load_model(path) for path in (shared, served)]
    with torch.no_grad():
        one, other = (model(IDS).logits for model in models)
    assert torch.equal(one, other)
    layers = models[0].model.layers
    assert layers[1].mlp.up_proj.weight is layers[0].mlp.up_proj.weight
    assert layers[4].mlp.up_proj.weight is not layers[2].mlp.up_proj.weight


@pytest.mark.long
def test_cached_answers_are_those_without_a_cache(
    store: Store, start: CompressResult, data_file: Path
) -> None:
    made = run_plan(lean_plan(start, data_file, [SHARE]), store)
    model = hf.load_model(store.open(made.steps[0].artifact).path)
    told = [
        model.generate(IDS, max_new_tokens=8, do_sample=False, use_cache=cache) for cache in (True, False)
    ]
    assert torch.equal(told[0], told[1])


@pytest.mark.long
def test_healing_trains_a_group_as_one(store: Store, start: CompressResult, data_file: Path) -> None:
    broken = run_plan(lean_plan(start, data_file, [SHARE]), store)
    healed = run_plan(lean_plan(start, data_file, [SHARE, HEAL]), store)
    assert [step.type for step in healed.steps] == ["Share", "Heal", "Expand"]
    assert healed.steps[1].bytes == broken.steps[0].bytes
    assert healed.steps[1].parameters == broken.steps[0].parameters < healed.parameters
    loss = [made.steps[index].figures["validationLoss"] for made, index in ((broken, 0), (healed, 1))]
    assert loss[1] < 0.9 * loss[0], loss
    assert healed.steps[2].figures["validationLoss"] == pytest.approx(loss[1], abs=1e-6)
    assert hf.read_json(store.open(healed.steps[1].artifact).path / hf.CONFIG)["shared_layers"]


@pytest.mark.long
def test_quantize_gets_an_expanded_copy(store: Store, start: CompressResult, data_file: Path) -> None:
    made = run_plan(lean_plan(start, data_file, [SHARE, {"type": "Quantize"}]), store)
    assert [step.type for step in made.steps] == ["Share", "Expand", "Quantize"]
    assert made.steps[2].modules_changed == 28


def test_a_stopped_healing_of_shared_layers_ends_with_the_same_bytes(
    store: Store, start: CompressResult, data_file: Path, tmp_path: Path
) -> None:
    shared = run_plan(lean_plan(start, data_file, [SHARE]), store).steps[0]
    source = start.model_copy(update={"artifact": shared.artifact})
    plan = lean_plan(source, data_file, [{**HEAL, "labelWeight": "1", "maxExamples": 96}])
    resumed, same = stopped_and_whole(plan, store, source, tmp_path, 7)
    assert resumed == 6 and same


@pytest.mark.long
def test_the_same_shares_give_the_same_bytes(
    store: Store, start: CompressResult, data_file: Path, tmp_path: Path
) -> None:
    plan: Any = lean_plan(start, data_file, [SHARE])
    _, again = alone(plan, store.root, start, tmp_path, "again", None)
    made = run_plan(plan, store)
    assert again == (store.open(made.steps[0].artifact).path / hf.WEIGHTS).read_bytes()
