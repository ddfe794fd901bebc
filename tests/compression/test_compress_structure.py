"""Neurons and heads: which go, what makes up for them, what every engine then loads, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, make_model, plan_of, run_apart, run_plan
from safetensors.torch import load_file
from step_alone import killed_and_whole, rows_of

from leanmodel_api.errors import ManifestError
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]

GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
NEURONS = {"type": "Prune", "method": "Neurons", "ratio": "0.5", "samples": 16}
HEADS = {"type": "Prune", "method": "Heads", "ratio": "0.5", "samples": 16}
PROJECTIONS = {
    "Neurons": ("mlp.down_proj", ["mlp.gate_proj", "mlp.up_proj"]),
    "Heads": ("self_attn.o_proj", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("structure") / "store")


@pytest.fixture(scope="module")
def large(
    store: Store, tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]
) -> CompressResult:
    return fetched(store, tmp_path_factory.mktemp("grouped"), texts, "Llama")


def fetched(
    store: Store, folder: Path, texts: list[tuple[str, str]], family: str, **sizes: Any
) -> CompressResult:
    made = make_model(folder / family, texts, family, **{**GROUPED, **sizes})
    return run_plan(plan_of(source={"uri": f"file:{made}"}), store)


def weights(store: Store, digest: str) -> dict[str, torch.Tensor]:
    return load_file(str(store.open(digest).path / hf.WEIGHTS))


def widened(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], method: str) -> None:
    """Put the cut tensors into the whole ones, zeros where a unit went, and see that inputs are rows of the old."""
    output, inputs = PROJECTIONS[method]
    for index in range(4):
        at = f"model.layers.{index}"
        for name in inputs:
            old, new = before[f"{at}.{name}.weight"], after[f"{at}.{name}.weight"]
            rows = [int((old == row).all(1).nonzero()[0, 0]) for row in new]
            assert rows == sorted(rows) and len(rows) == old.shape[0] // 2
            if name == inputs[0]:
                columns = rows
        wide = torch.zeros_like(before[f"{at}.{output}.weight"])
        wide[:, columns] = after[f"{at}.{output}.weight"]
        before[f"{at}.{output}.weight"] = wide


@pytest.mark.parametrize(
    ("family", "method"),
    [(family, "Neurons") for family in ("Llama", "Mistral", "Qwen2", "Qwen3")]
    # Heads of Qwen2 are refused, see below.
    + [(family, "Heads") for family in ("Llama", "Mistral", "Qwen3")],
)
def test_every_family_becomes_smaller_and_computes_as_the_whole_model_with_the_units_silenced(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path, family: str, method: str
) -> None:
    from transformers import AutoModelForCausalLM

    start = fetched(store, tmp_path, texts, family)
    made = run_apart(lean_plan(start, data_file, [{**NEURONS, "method": method}]), store)
    step = made.steps[0]
    assert made.bytes < start.bytes and made.parameters < start.parameters
    assert step.modules_changed == 4 * (1 + len(PROJECTIONS[method][1]))
    assert step.figures["peakAnonymousBytes"] <= step.estimated_memory_bytes
    config = hf.read_json(store.open(made.artifact).path / hf.CONFIG)
    kept = {"intermediate_size": 32} if method == "Neurons" else {"num_attention_heads": 2, "head_dim": 8}
    assert kept.items() <= config.items()
    # What any user would load it by: no class and no code of ours.
    cut = AutoModelForCausalLM.from_pretrained(str(store.open(made.artifact).path), dtype=torch.float32)
    whole = hf.load_model(store.open(start.artifact).path)
    before = weights(store, start.artifact)
    widened(before, weights(store, made.artifact), method)
    whole.load_state_dict({key: value.float() for key, value in before.items()}, strict=False)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.allclose(cut(ids).logits, whole(ids).logits, atol=2e-5)


@pytest.mark.parametrize("method", ["Neurons", "Heads"])
def test_the_units_that_add_least_to_the_output_go(
    store: Store, large: CompressResult, data_file: Path, method: str
) -> None:
    plan = lean_plan(large, data_file, [{**NEURONS, "method": method}])
    made = run_plan(plan, store)
    output, inputs = PROJECTIONS[method]
    model = hf.load_model(store.open(large.artifact).path)
    layer, seen = model.model.layers[0].get_submodule(output), []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0][0].detach()))
    with torch.no_grad():
        for row in rows_of(plan, store, large).train[:16]:
            model.model(torch.tensor([row.ids]))
    hook.remove()
    width = 1 if method == "Neurons" else 16
    tokens = torch.cat(seen)
    added = [
        float((tokens[:, at : at + width] @ layer.weight[:, at : at + width].T).norm())
        for at in range(0, layer.weight.shape[1], width)
    ]
    best = sorted(sorted(range(len(added)), key=lambda unit: -added[unit])[: len(added) // 2])
    rows = [row for unit in best for row in range(unit * width, (unit + 1) * width)]
    name = f"model.layers.0.{inputs[0]}.weight"
    assert torch.equal(weights(store, made.artifact)[name], weights(store, large.artifact)[name][rows])


def test_a_trained_model_keeps_more_than_with_other_neurons(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    source = {"uri": f"file:{store.open(large.artifact).path}"}
    tuned = {"epochs": "3", "learningRate": "0.01"}
    start = run_plan(plan_of(source=source, dataSets=[data_set(data_file)], finetune=tuned), store)
    made = run_plan(lean_plan(start, data_file, [NEURONS]), store)
    after, before = made.steps[0].figures["validationLoss"], start.steps[-1].figures["validationLoss"]
    model = hf.load_model(store.open(start.artifact).path)
    rows = rows_of(lean_plan(start, data_file, []), store, start).validation
    from leanmodel_compression import figures

    for layer in model.model.layers:
        layer.mlp.down_proj.weight[:, :32] = 0
    first = figures.validation(model, rows, 0)["validationLoss"]
    assert before <= after < first


@pytest.mark.parametrize("settings", [NEURONS, HEADS], ids=["neurons", "heads"])
def test_a_killed_cut_goes_on_at_the_layer_where_it_was(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    plan = lean_plan(large, data_file, [settings])
    assert killed_and_whole(plan, store, large, tmp_path, 2) == (2, True)


def test_both_may_follow_each_other_and_be_healed_and_quantised(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    steps = [HEADS, NEURONS, {"type": "Heal", "maxExamples": 32}, {"type": "Quantize", "scheme": "W8A8"}]
    made = run_plan(lean_plan(large, data_file, steps), store)
    losses = [step.figures["validationLoss"] for step in made.steps[:3]]
    assert losses[2] < losses[1]
    assert made.steps[3].modules_changed == 28


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("Llama", {}, {**NEURONS, "ratio": "0.1"}, "ratio", 'write at least "0.5"'),
    ("Llama", {}, {**HEADS, "ratio": "0.2"}, "ratio", 'write at least "0.50"'),
    ("Llama", {"num_key_value_heads": 1}, HEADS, "method", "4 heads in 1 key-value groups"),
    ("Qwen2", {}, HEADS, "method", "vLLM takes hidden / heads"),
    (
        "Llama",
        {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4},
        {**HEADS, "ratio": "0.25"},
        "ratio",
        'write one of "0.5", "0.75"',
    ),
]


@pytest.mark.parametrize(("family", "sizes", "step", "field", "words"), REFUSED)
def test_what_no_engine_would_load_or_nothing_would_change_is_refused_before_any_work(
    store: Store,
    data_file: Path,
    texts: list[tuple[str, str]],
    tmp_path: Path,
    family: str,
    sizes: dict[str, Any],
    step: dict[str, Any],
    field: str,
    words: str,
) -> None:
    start = fetched(store, tmp_path, texts, family, **sizes)
    with pytest.raises(ManifestError) as refused:
        run_plan(lean_plan(start, data_file, [step]), store)
    assert [issue.field for issue in refused.value.issues] == [f"spec.lean.steps[0].{field}"]
    assert words in str(refused.value)
