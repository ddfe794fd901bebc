"""Low rank: how small, how near, who loads it, what may follow, and that a killed run goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import lean_plan, make_model, plan_of, run_apart, run_plan
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from step_alone import killed_and_whole, rows_of

from leanmodel_api.errors import ManifestError
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.shapes import Linear, from_config
from leanmodel_compression.steps.factorize import budget_rank, rounded
from leanmodel_compression.steps.protocol import StepError
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]

BUDGET = {"type": "Factorize", "ratio": "0.3", "samples": 16}
ENERGY = {"type": "Factorize", "energy": "0.9", "samples": 16}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("factorize") / "store")


@pytest.fixture(scope="module")
def large(store: Store, model_folder: Path) -> CompressResult:
    return run_plan(plan_of(source={"uri": f"file:{model_folder}"}), store)


def weights(store: Store, digest: str) -> dict[str, torch.Tensor]:
    return load_file(str(store.open(digest).path / hf.WEIGHTS))


def multiplied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The thin layers' products under the names of the layers that they came from."""
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(".inner.weight"):
            whole = name.removesuffix(".inner.weight")
            found[f"{whole}.weight"] = tensors[f"{whole}.outer.weight"].float() @ tensor.float()
        elif not name.endswith(".outer.weight"):
            found[name.replace(".outer.bias", ".bias")] = tensor.float()
    return found


def inputs_of(store: Store, model: CompressResult, data_file: Path, name: str) -> tuple[Any, Any]:
    """A layer's weight, and what goes into it on the calibration rows (tokens × columns)."""
    loaded, seen = hf.load_model(store.open(model.artifact).path), []
    layer = loaded.get_submodule(name)
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0][0].detach()))
    with torch.no_grad():
        for row in rows_of(lean_plan(model, data_file, []), store, model).train[:16]:
            loaded.model(torch.tensor([row.ids]))
    hook.remove()
    return layer.weight, torch.cat(seen)


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_every_family_has_fewer_parameters_and_computes_the_products(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path, family: str
) -> None:
    folder = make_model(tmp_path / family, texts, family)
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    made = run_apart(lean_plan(start, data_file, [BUDGET]), store)
    step, before = made.steps[0], from_config(hf.read_json(store.open(start.artifact).path / hf.CONFIG))
    assert step.modules_changed == 28
    assert step.figures["peakAnonymousBytes"] <= step.estimated_memory_bytes
    place = store.open(made.artifact).path
    shape = from_config(hf.read_json(place / hf.CONFIG))
    linears = before.linears()[:-1]
    inside = sum(linear.columns * linear.rows for linear in linears)
    gone = before.parameters - shape.parameters
    assert 0.3 * inside <= gone <= 0.3 * inside + sum(linear.columns + linear.rows for linear in linears)
    assert start.parameters - made.parameters == gone and made.bytes < start.bytes
    thin, whole = hf.load_model(place), hf.load_model(store.open(start.artifact).path)
    whole.load_state_dict(multiplied(weights(store, made.artifact)), strict=False)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.allclose(thin(ids).logits, whole(ids).logits, atol=2e-4)
        assert torch.equal(thin(ids).logits, hf.load_model(place)(ids).logits)


@pytest.mark.parametrize("name", ["self_attn.q_proj", "self_attn.k_proj"])
def test_no_layer_of_its_rank_is_nearer_on_the_rows(
    store: Store, large: CompressResult, data_file: Path, name: str
) -> None:
    made = run_plan(lean_plan(large, data_file, [BUDGET]), store)
    at = f"model.layers.0.{name}"
    weight, tokens = inputs_of(store, large, data_file, at)
    after = weights(store, made.artifact)
    rank = after[f"{at}.inner.weight"].shape[0]
    error = (tokens @ (multiplied(after)[f"{at}.weight"] - weight).T).norm()
    # Of a matrix of outputs none of that rank is nearer than the one cut from its singular values.
    least = torch.linalg.svdvals(tokens @ weight.T)[rank:].norm()
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    plain = (tokens @ (left[:, :rank] * values[:rank] @ right[:rank] - weight).T).norm()
    assert float(least) * 0.999 <= float(error) <= float(least) * 1.05
    assert error < plain


def test_energy_gives_each_layer_the_rank_that_it_needs(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    made = run_plan(lean_plan(large, data_file, [ENERGY]), store)
    after = weights(store, made.artifact)
    ranks = hf.read_json(store.open(made.artifact).path / hf.CONFIG)["low_rank"]
    assert 0 < len(ranks) == made.steps[0].modules_changed and len(set(ranks.values())) > 1
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
        at = f"model.layers.0.{name}"
        weight, tokens = inputs_of(store, large, data_file, at)
        squares = torch.linalg.svdvals(tokens @ weight.T).square()
        needed = int((squares.cumsum(0) < 0.9 * squares.sum()).sum()) + 1
        if at in ranks:
            assert abs(ranks[at] - needed) <= 1 and after[f"{at}.inner.weight"].shape[0] == ranks[at]
        else:
            assert (needed + 1) * sum(weight.shape) >= weight.numel()


def test_an_energy_that_makes_nothing_smaller_is_an_error(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    with pytest.raises(StepError, match="makes none of 28 layers smaller"):
        run_plan(lean_plan(large, data_file, [{**ENERGY, "energy": "0.999999"}]), store)


def test_exceptions_stay_whole(store: Store, large: CompressResult, data_file: Path) -> None:
    step = {**BUDGET, "targets": ["re:.*mlp.*"], "ignore": ["down_proj", "re:.*layers[.]2[.].*"]}
    made = run_plan(lean_plan(large, data_file, [step]), store)
    before, after = weights(store, large.artifact), weights(store, made.artifact)
    assert {name for name in before if name not in after} == {
        f"model.layers.{index}.mlp.{name}.weight" for index in (0, 1, 3) for name in ("gate_proj", "up_proj")
    }
    assert all(torch.equal(before[name], after[name]) for name in after if name in before)


@pytest.mark.parametrize("settings", [BUDGET, ENERGY], ids=["budget", "energy"])
def test_a_killed_factorisation_goes_on_at_the_layer_where_it_was(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    assert killed_and_whole(lean_plan(large, data_file, [settings]), store, large, tmp_path, 3) == (3, True)


@pytest.mark.parametrize("method", ["Full", "LoRA"])
def test_thin_layers_heal_and_are_trimmed(
    store: Store, large: CompressResult, data_file: Path, method: str
) -> None:
    heal = {"type": "Heal", "method": method, "learningRate": "0.01", "maxExamples": 64}
    made = run_plan(lean_plan(large, data_file, [BUDGET, heal, {"type": "Trim"}]), store)
    factorised, healed, trimmed = made.steps
    assert healed.figures["validationLoss"] < factorised.figures["validationLoss"]
    assert healed.modules_changed >= 56 and healed.parameters == factorised.parameters
    assert trimmed.parameters < healed.parameters
    ranks = [hf.read_json(store.open(step.artifact).path / hf.CONFIG)["low_rank"] for step in made.steps]
    assert ranks[0] == ranks[1] == ranks[2]


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([0.1, 0.2, 0.5]))
def test_a_budget_is_never_passed_and_large_ranks_are_whole_multiples(
    columns: int, rows: int, ratio: float
) -> None:
    rank = budget_rank(Linear("", columns, rows), ratio)
    assert rank * (columns + rows) <= (1 - ratio) * columns * rows * (1 + 1e-9)
    assert rank < 64 or rank % 32 == 0
    assert (rank + 32) * (columns + rows) > (1 - ratio) * columns * rows


@given(st.integers(1, 5000))
def test_a_rank_that_energy_needs_is_rounded_up(rank: int) -> None:
    assert rank <= -rounded(-rank) < rank + 32


def test_transformers_alone_refuses_it_instead_of_making_weights_up(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    place = store.open(run_plan(lean_plan(large, data_file, [BUDGET]), store).artifact).path
    code = "import sys, transformers; transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])"
    alone = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True)
    assert alone.returncode == 1 and "leanmodel_low_rank_llama" in alone.stderr


@pytest.mark.parametrize(
    ("step", "field", "words"),
    [
        ({**BUDGET, "ratio": "0.95"}, ".ratio", "leaves no rank to"),
        ({**BUDGET, "targets": ["re:.*expert.*"]}, ".targets", "match none"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    store: Store, large: CompressResult, data_file: Path, step: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ManifestError) as refused:
        run_plan(lean_plan(large, data_file, [step]), store)
    assert [issue.field for issue in refused.value.issues] == [f"spec.lean.steps[0]{field}"]
    assert words in str(refused.value)
