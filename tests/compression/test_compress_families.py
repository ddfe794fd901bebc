"""Families whose modules are not Llama's: every step that they have, and every refusal of one that they lack."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, make_model, plan_of, run_apart, run_plan
from safetensors.torch import load_file, save_file

from leanmodel_api import low_rank, shared
from leanmodel_api.errors import ManifestError
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.families import FAMILIES as DECODERS
from leanmodel_compression.families import Family, of_config
from leanmodel_compression.shapes import from_config
from leanmodel_compression.steps import step_of
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

FAMILIES = {"Gemma3": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel", "Phi3": "Phi3ForCausalLM"}
TUNE = {"epochs": "3", "learningRate": "0.01"}
NEURONS = {"type": "Prune", "method": "Neurons", "ratio": "0.5", "samples": 16}
HEAL = {"type": "Heal", "epochs": "1", "learningRate": "0.005", "method": "LoRA", "loraRank": 2}
# A step of each type, as far as it takes to be asked for.
STEPS: dict[str, dict[str, Any]] = {
    "Prune": {"type": "Prune", "ratio": "0.25"},
    "Factorize": {"type": "Factorize", "ratio": "0.25"},
    "Share": {"type": "Share"},
    "Export": {"type": "Export", "format": "GGUF"},
}
SCHEMES = {"AWQ": "W4A16"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("families") / "store")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> dict[str, Path]:
    """A tiny random model of each family, with what is zero or one in a fresh one drawn: what is lost would show."""
    made = {name: make_model(tmp_path_factory.mktemp(name) / "model", texts, name) for name in FAMILIES}
    for folder in made.values():
        draw, tensors = torch.Generator().manual_seed(3), load_file(str(folder / hf.WEIGHTS))
        for name, value in sorted(tensors.items()):
            if value.ndim == 1:
                tensors[name] = value + (0.2 * torch.randn(value.shape, generator=draw)).to(value.dtype)
        save_file(tensors, str(folder / hf.WEIGHTS), metadata={"format": "pt"})
    return made


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(store: Store, folders: dict[str, Path], family: str) -> CompressResult:
    return run_plan(plan_of(source={"uri": f"file:{folders[family]}"}), store)


def weights(store: Store, made: CompressResult) -> dict[str, torch.Tensor]:
    return load_file(str(store.open(made.artifact).path / hf.WEIGHTS))


def config(store: Store, made: CompressResult) -> dict[str, Any]:
    return hf.read_json(store.open(made.artifact).path / hf.CONFIG)


def plain(store: Store, made: CompressResult) -> Any:
    """Return a model as any user would load it: no class and no code of ours."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(store.open(made.artifact).path), dtype=torch.float32)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 40)[None]).logits


def test_what_is_fetched_is_what_lay_there_and_is_counted_to_the_last_weight(
    store: Store, folders: dict[str, Path], start: CompressResult, family: str
) -> None:
    before, after = load_file(str(folders[family] / hf.WEIGHTS)), weights(store, start)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    shape = from_config(config(store, start))
    assert shape.architecture == FAMILIES[family] and shape.layers == 4 and shape.tied
    assert shape.parameters == start.parameters == sum(value.numel() for value in after.values())
    assert {f"{one.name}.weight" for one in shape.linears()[:-1]} == {
        name for name in after if name.endswith(tuple(f"{one.name}.weight" for one in shape.decoder.projections))
    }  # fmt: skip
    # Loaded our way it answers as it does loaded any other way.
    ours = hf.load_model(store.open(start.artifact).path)
    assert torch.allclose(logits(ours), logits(plain(store, start)), atol=1e-5)


@pytest.mark.parametrize(
    "more", [{"trainLayers": 2}, {"method": "LoRA", "loraRank": 4}], ids=["last", "lora"]
)
def test_finetune_trains_the_layers_that_are_meant(
    store: Store, folders: dict[str, Path], data_file: Path, start: CompressResult, family: str, more: dict[str, Any]
) -> None:  # fmt: skip
    source = {"uri": f"file:{folders[family]}"}
    made = run_apart(plan_of(source=source, dataSets=[data_set(data_file)], finetune={**TUNE, **more}), store)
    before, after, decoder = weights(store, start), weights(store, made), DECODERS[FAMILIES[family]]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if "trainLayers" in more:
        at = tuple(f"{place}." for place in (decoder.layer(2), decoder.layer(3), decoder.norm))
        assert changed and all(name.startswith(at) for name in changed)
    else:
        linear = {f"{one.name}.weight" for one in from_config(config(store, start)).linears()[:-1]}
        assert changed == linear
    assert made.steps[-1].figures["peakAnonymousBytes"] <= made.steps[-1].estimated_memory_bytes
    assert made.steps[-1].figures["trainLoss"] < 0.9 * untrained_loss(store, start, data_file)


def untrained_loss(store: Store, start: CompressResult, data_file: Path) -> float:
    from leanmodel_compression.encode import encode_all
    from leanmodel_compression.figures import validation
    from leanmodel_store import datasets

    plan = lean_plan(start, data_file, [])
    folder, parts = store.open(start.artifact).path, datasets.load(plan.data_sets[0], Path("."), store)
    return validation(hf.load_model(folder), encode_all(hf.load_tokenizer(folder), parts.validation), 2)["validationLoss"]  # fmt: skip


def test_layers_go_and_what_is_left_is_taught_and_healed(
    store: Store, data_file: Path, start: CompressResult
) -> None:
    steps = [
        {"type": "Prune", "keepLayers": 2},
        {"type": "Distill", "epochs": "1", "learningRate": "0.01"},
        {"type": "Prune", "method": "Magnitude", "ratio": "0.5"},
        HEAL,
    ]
    made = run_apart(lean_plan(start, data_file, steps), store)
    kept = [int(index) for index in made.steps[0].detail.split("(")[1].split(")")[0].split(",")]
    shape, before = from_config(config(store, made)), config(store, start)
    assert shape.layers == 2 and shape.parameters == made.parameters
    if "layer_types" in before:
        assert config(store, made)["layer_types"] == [before["layer_types"][index] for index in kept]
    assert made.steps[3].figures["zeroShare"] == pytest.approx(0.5, abs=0.01)
    # The table was left alone by all of them.
    name = f"{shape.decoder.table}.weight"
    assert torch.equal(weights(store, start)[name], weights(store, made)[name])
    for step in made.steps:
        assert step.figures["peakAnonymousBytes"] <= step.estimated_memory_bytes, step.type
    assert logits(plain(store, made)).isfinite().all()


def test_neurons_go_and_the_rest_computes_as_if_they_were_silent(
    store: Store, data_file: Path, start: CompressResult
) -> None:
    made = run_plan(lean_plan(start, data_file, [NEURONS]), store)
    shape = from_config(config(store, made))
    assert shape.intermediate == 32 and made.parameters == shape.parameters < start.parameters
    before, after = weights(store, start), weights(store, made)
    output = shape.decoder.reading("inner").name
    inputs = [one for one in shape.decoder.projections if "inner" in one.writes]
    for index in range(4):
        at = shape.decoder.layer(index)
        first = rows_first(before, f"{at}.{inputs[0].name}.weight", shape.decoder)[:64]
        new = rows_first(after, f"{at}.{inputs[0].name}.weight", shape.decoder)[:32]
        kept = [int((first == row).all(1).nonzero()[0, 0]) for row in new]
        wide = torch.zeros_like(rows_first(before, f"{at}.{output}.weight", shape.decoder))
        wide[:, kept] = rows_first(after, f"{at}.{output}.weight", shape.decoder)
        before[f"{at}.{output}.weight"] = wide.T.contiguous() if shape.decoder.transposed else wide
    whole = plain(store, start)
    whole.load_state_dict({name: value.float() for name, value in before.items()}, strict=False)
    assert torch.allclose(logits(plain(store, made)), logits(whole), atol=3e-5)


def rows_first(tensors: Mapping[str, torch.Tensor], name: str, decoder: Family) -> torch.Tensor:
    """Return a stored weight as rows × columns."""
    return tensors[name].T if decoder.transposed else tensors[name]


def test_heads_of_gemma3_go_and_the_rest_computes_as_if_they_were_silent(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    folder = make_model(tmp_path / "grouped", texts, "Gemma3", **sizes)
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    step = {"type": "Prune", "method": "Heads", "ratio": "0.5", "samples": 16}
    made = run_plan(lean_plan(start, data_file, [step]), store)
    assert config(store, made)["num_attention_heads"] == 2 and config(store, made)["num_key_value_heads"] == 1
    before, after = weights(store, start), weights(store, made)
    for index in range(4):
        at = f"model.layers.{index}.self_attn"
        group = [bool(torch.equal(before[f"{at}.k_proj.weight"][8 * one : 8 * one + 8], after[f"{at}.k_proj.weight"])) for one in range(2)].index(True)  # fmt: skip
        wide = torch.zeros_like(before[f"{at}.o_proj.weight"])
        wide[:, 16 * group : 16 * group + 16] = after[f"{at}.o_proj.weight"]
        before[f"{at}.o_proj.weight"] = wide
    whole = plain(store, start)
    whole.load_state_dict({name: value.float() for name, value in before.items()}, strict=False)
    assert torch.allclose(logits(plain(store, made)), logits(whole), atol=3e-5)


@pytest.mark.parametrize("method", ["Wanda", "SparseGPT"])
def test_calibrated_zeros(store: Store, data_file: Path, start: CompressResult, method: str) -> None:
    step = {"type": "Prune", "method": method, "structure": "2:4", "samples": 8, "maxLength": 64}
    made = run_plan(lean_plan(start, data_file, [step]), store)
    shape, after = from_config(config(store, made)), weights(store, made)
    assert made.steps[0].figures["zeroShare"] == pytest.approx(0.5)
    for linear in shape.linears()[:-1]:
        groups = rows_first(after, f"{linear.name}.weight", shape.decoder).reshape(linear.rows, -1, 4)
        assert bool(((groups == 0).sum(-1) == 2).all()), linear.name
    assert logits(plain(store, made)).isfinite().all()


@pytest.mark.parametrize(("scheme", "algorithm"), [("W8A8", "RTN"), ("W4A16", "GPTQ")])
def test_quantised_layers_answer_nearly_as_before(
    store: Store, data_file: Path, start: CompressResult, family: str, scheme: str, algorithm: str
) -> None:
    step = {"type": "Quantize", "scheme": scheme, "algorithm": algorithm, "samples": 16}
    plan = lean_plan(start, data_file, [step])
    if DECODERS[FAMILIES[family]].refusal(plan.steps[0]) is not None:
        with pytest.raises(ManifestError, match="Quantize of a"):
            run_plan(plan, store)
        return
    made = run_plan(plan, store)
    shape = from_config(config(store, start))
    assert made.steps[0].modules_changed == 4 * len(shape.decoder.projections)
    whole, rounded = (logits(hf.load_model(store.open(one.artifact).path)) for one in (start, made))
    off = float((whole - rounded).abs().mean() / whole.abs().mean())
    assert 0 < off < {"W8A8": 0.1, "W4A16": 0.6}[scheme]


def test_gpt2_as_the_hub_has_it_is_fetched_whole(
    store: Store, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Its weights are named without the head's prefix there, and its configuration leaves out what is usual."""
    folder = tmp_path / "hub"
    shutil.copytree(folders["GPT2"], folder)
    tensors = load_file(str(folder / hf.WEIGHTS))
    named = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    named |= {f"h.{at}.attn.bias": torch.ones(1, 1, 256, 256) for at in range(4)}
    save_file(named, str(folder / hf.WEIGHTS), metadata={"format": "pt"})
    told = hf.read_json(folder / hf.CONFIG)
    hf.write_json(
        folder / hf.CONFIG, {key: value for key, value in told.items() if key != "tie_word_embeddings"}
    )
    made = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    found = weights(store, made)
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_every_step_sees_rows_by_columns_and_conv1d_is_stored(store: Store, folders: dict[str, Path]) -> None:
    from transformers.pytorch_utils import Conv1D

    start = run_plan(plan_of(source={"uri": f"file:{folders['GPT2']}"}), store)
    ours, theirs = hf.load_model(store.open(start.artifact).path), plain(store, start)
    assert not any(isinstance(module, Conv1D) for module in ours.modules())
    assert sum(isinstance(module, Conv1D) for module in theirs.modules()) == 16
    place = "transformer.h.0.attn.c_attn"
    assert ours.get_submodule(place).weight.shape == (96, 32)
    assert weights(store, start)[f"{place}.weight"].shape == (32, 96)


@pytest.mark.parametrize(("scheme", "algorithm"), [("W8A8", "SmoothQuant"), ("W4A16", "AWQ")])
def test_channels_of_fused_layers_are_scaled_without_changing_what_is_computed(
    store: Store, folders: dict[str, Path], data_file: Path, scheme: str, algorithm: str
) -> None:
    start = run_plan(plan_of(source={"uri": f"file:{folders['Phi3']}"}), store)
    step = {"type": "Quantize", "scheme": scheme, "algorithm": algorithm, "samples": 16}
    made = run_plan(lean_plan(start, data_file, [step]), store)
    whole, rounded = (logits(hf.load_model(store.open(one.artifact).path)) for one in (start, made))
    off = float((whole - rounded).abs().mean() / whole.abs().mean())
    assert 0 < off < {"W8A8": 0.1, "W4A16": 0.6}[scheme]
    norm = "model.layers.0.input_layernorm.weight"
    assert not torch.equal(weights(store, start)[norm], weights(store, made)[norm])


def test_silent_channels_of_fused_layers_go_and_the_answers_stay(
    store: Store, folders: dict[str, Path], data_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "silent"
    shutil.copytree(folders["Phi3"], folder)
    tensors, silent = load_file(str(folder / hf.WEIGHTS)), [1, 6, 7, 13, 20, 24, 29, 31]
    for name, value in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            value[silent] = 0
        if name.endswith("embed_tokens.weight"):
            value[:, silent] = 0
    save_file(tensors, str(folder / hf.WEIGHTS), metadata={"format": "pt"})
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    step = {"type": "Prune", "method": "Width", "ratio": "0.25", "samples": 16}
    made = run_plan(lean_plan(start, data_file, [step]), store)
    assert config(store, made)["hidden_size"] == 24 and config(store, made)["head_dim"] == 16
    wanted = logits(plain(store, start))
    # Norms are stored in bf16, and so is their scale.
    assert float((logits(plain(store, made)) - wanted).abs().max()) < 0.02 * float(wanted.abs().max())


def test_a_trimmed_vocabulary_keeps_its_logits(store: Store, data_file: Path, start: CompressResult) -> None:
    made = run_plan(lean_plan(start, data_file, [{"type": "Trim"}]), store)
    assert made.steps[0].figures["tokens"] < made.steps[0].figures["tokensBefore"]
    shape = from_config(config(store, made))
    assert shape.parameters == made.parameters and shape.vocabulary == made.steps[0].figures["tokens"]


def asked(kind: str, member: str, value: str) -> dict[str, Any]:
    if kind == "Quantize":
        return {
            "type": kind,
            "scheme": SCHEMES.get(value, "W8A8"),
            **({} if member == "type" else {member: value}),
        }
    return {**STEPS[kind], member: value}


REFUSED = [(name, *key) for name, architecture in FAMILIES.items() for key in DECODERS[architecture].refusals]


@pytest.mark.parametrize(("name", "kind", "member", "value"), REFUSED)
def test_what_a_family_does_not_have_is_refused_before_any_work(
    store: Store, folders: dict[str, Path], data_file: Path, name: str, kind: str, member: str, value: str
) -> None:
    """The lean plan is refused while the large model's source has only been looked at."""
    refusal = DECODERS[FAMILIES[name]].refusals[kind, member, value]
    fetched = plan_of(source={"uri": f"file:{folders[name]}"}, dataSets=[data_set(data_file)])
    later = plan_of(role="Lean", steps=[asked(kind, member, value)], dataSets=[data_set(data_file)])
    with pytest.raises(ManifestError) as caught:
        run_plan(fetched, store, [later])
    said = {issue.field: str(issue) for issue in caught.value.issues}[f"spec.lean.steps[0].{member}"]
    assert DECODERS[FAMILIES[name]].name in said and refusal.why in said and refusal.instead in said


@pytest.mark.parametrize("architecture", DECODERS)
def test_a_family_without_a_class_of_ours_says_so(architecture: str) -> None:
    """Factorize and Share stand on classes of their own: a family has one, or refuses the step."""
    refused = {kind for kind, member, _ in DECODERS[architecture].refusals if member == "type"}
    assert (low_rank.family_of(architecture) is None) == ("Factorize" in refused)
    assert (shared.family_of(architecture) is None) == ("Share" in refused)
    assert all(re.fullmatch(r"[^.]+", one.why) for one in DECODERS[architecture].refusals.values())


def test_every_refused_value_is_one_that_a_manifest_may_have() -> None:
    for name, kind, member, value in REFUSED:
        spec = lean_plan(CompressResult(name="x", role="Large", plan="p", artifact="sha256:" + "0" * 64, bytes=0), Path("x"), [asked(kind, member, value)]).steps[0]  # fmt: skip
        assert getattr(spec, member) == value and step_of(spec).name == kind, (name, kind)


def test_an_unknown_configuration_is_read_as_the_plainest() -> None:
    assert of_config({"architectures": ["OddForCausalLM"]}).architecture == "LlamaForCausalLM"
    shape = replace(
        from_config({**PLAIN, "architectures": ["LlamaForCausalLM"]}), architecture="LowRankQwen3ForCausalLM"
    )
    assert shape.decoder.architecture == "Qwen3ForCausalLM"


PLAIN = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300,
}  # fmt: skip
