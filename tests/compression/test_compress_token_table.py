"""A token table in 8 bits: what lies in the files, what it means to a head, and that the estimate knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, plan_of, run_plan
from safetensors.torch import load_file

from leanmodel_api.eight_bits import table_of
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.steps import grid
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

TABLE = "model.embed_tokens.weight"
STEPS: dict[str, dict[str, Any]] = {
    "rounded in 8 bits": {"scheme": "W8A8"},
    "weights in 8 bits": {"scheme": "W8A16"},
    "rounded in 4 bits": {"scheme": "W4A16", "groupSize": 32},
    "GPTQ": {"scheme": "W4A16", "groupSize": 32, "algorithm": "GPTQ", "samples": 8},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("tables") / "store")


@pytest.fixture(scope="module")
def large(store: Store, model_folder: Path, data_file: Path) -> CompressResult:
    tuned = {"epochs": "4", "learningRate": "0.01"}
    return run_plan(
        plan_of(source={"uri": f"file:{model_folder}"}, dataSets=[data_set(data_file)], finetune=tuned), store
    )


@pytest.mark.parametrize(
    "how", [name if name == "GPTQ" else pytest.param(name, marks=pytest.mark.long) for name in STEPS]
)
def test_the_table_is_on_the_grid_and_all_else_is_as_without_it(
    store: Store, large: CompressResult, data_file: Path, how: str
) -> None:
    step = {"type": "Quantize", **STEPS[how]}
    plain, made = (
        run_plan(lean_plan(large, data_file, [{**step, **more}]), store)
        for more in ({}, {"embeddings": "Int8"})
    )
    before, after = (load_file(str(store.open(one.artifact).path / hf.WEIGHTS)) for one in (plain, made))
    table, scale = after.pop(TABLE), after.pop(f"{TABLE}_scale")
    whole = before.pop(TABLE)
    assert table.dtype == torch.int8 and scale.dtype == torch.bfloat16
    assert torch.equal(table.float() * scale.float(), grid.fake(whole.float(), 8, None))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert plain.bytes - made.bytes == pytest.approx(whole.numel() - 2 * len(whole), abs=600)
    assert made.parameters == plain.parameters
    assert made.steps[0].detail.endswith("token table in 8 bits")


def test_what_is_loaded_again_computes_with_it_at_both_ends(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    step = {"type": "Quantize", "scheme": "W8A8", "embeddings": "Int8"}
    folder = store.open(run_plan(lean_plan(large, data_file, [step]), store).artifact).path
    config = hf.read_json(folder / hf.CONFIG)
    assert table_of(config["quantization_config"]) == TABLE.removesuffix(".weight")
    model, tensors = hf.load_model(folder), load_file(str(folder / hf.WEIGHTS))
    expected = tensors[TABLE].float() * tensors[f"{TABLE}_scale"].float()
    assert torch.equal(model.get_input_embeddings().weight, expected)
    head = model.get_output_embeddings().weight
    assert torch.equal(head, expected) is config["tie_word_embeddings"]
    assert config["tie_word_embeddings"] or torch.equal(head, tensors["lm_head.weight"].float())
    # What a model is trained or cut from is never one that is quantised: nothing else reads the integers.
    assert head.dtype == torch.float32
