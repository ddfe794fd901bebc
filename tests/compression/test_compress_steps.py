"""Every step on tiny models: what it changes, what it leaves, and that its artifact loads and is stable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, make_model, plan_of, run_apart, run_plan
from safetensors import safe_open
from safetensors.torch import load_file

from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_compression import hf
from leanmodel_compression.batches import Row
from leanmodel_compression.encode import encode_all
from leanmodel_compression.figures import validation
from leanmodel_compression.steps.training import answer_logits, collate
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

DISTILL = {"type": "Distill", "learningRate": "0.01", "epochs": "2", "checkpointSteps": 4}
PRUNE = {"type": "Prune", "keepLayers": 2}


def weights(store: Store, digest: str) -> dict[str, torch.Tensor]:
    return load_file(str(store.open(digest).path / hf.WEIGHTS))


def test_fetch_keeps_every_weight_and_names_the_end_token(
    store: Store, large: CompressResult, model_folder: Path
) -> None:
    before, after = load_file(str(model_folder / hf.WEIGHTS)), weights(store, large.artifact)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    folder = store.open(large.artifact).path
    tokenizer = hf.load_tokenizer(folder)
    assert hf.read_json(folder / hf.CONFIG)["eos_token_id"] == tokenizer.eos_token_id
    assert hf.read_json(folder / hf.GENERATION_CONFIG)["eos_token_id"] == tokenizer.eos_token_id
    assert large.bytes == sum(2 * tensor.numel() for tensor in after.values()) + header(folder)
    assert large.parameters == sum(tensor.numel() for tensor in after.values())


def header(folder: Path) -> int:
    raw = (folder / hf.WEIGHTS).read_bytes()[:8]
    return 8 + int.from_bytes(raw, "little")


def test_an_artifact_names_no_path_no_date_and_no_library(store: Store, large: CompressResult) -> None:
    folder = store.open(large.artifact).path
    text = "".join(path.read_text() for path in folder.glob("*.json"))
    assert str(store.root) not in text
    assert "transformers_version" not in text and "_name_or_path" not in text


@pytest.mark.parametrize(
    "more",
    [{}, {"trainLayers": 1}, {"method": "LoRA", "loraRank": 4}, {"method": "LoRA", "trainLayers": 2}],
    ids=["all", "last-layer", "lora", "lora-last-two"],
)
def test_finetune_learns_and_changes_only_what_it_should(
    store: Store, large: CompressResult, model_folder: Path, data_file: Path, more: dict[str, Any]
) -> None:
    settings = {"epochs": "4", "learningRate": "0.02", **more}
    plan = plan_of(source={"uri": f"file:{model_folder}"}, dataSets=[data_set(data_file)], finetune=settings)
    made = run_plan(plan, store)
    step = made.steps[-1]
    assert step.figures["validationLoss"] < 0.97 * validation_loss(store, large.artifact, plan)
    before, after = weights(store, large.artifact), weights(store, made.artifact)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {int(name.split(".")[2]) for name in changed if name.startswith("model.layers.")}
    assert layers == {None: {0, 1, 2, 3}, 1: {3}, 2: {2, 3}}[more.get("trainLayers")]
    if more.get("method") == "LoRA":
        assert all(name.endswith("_proj.weight") for name in changed)
    assert step.modules_changed > 0


def validation_rows(store: Store, digest: str, plan: CompressPlan) -> tuple[Row, ...]:
    parts = datasets.load(plan.data_sets[0], Path("."), store)
    return encode_all(hf.load_tokenizer(store.open(digest).path), parts.validation)


def validation_loss(store: Store, digest: str, plan: CompressPlan) -> float:
    model = hf.load_model(store.open(digest).path)
    return validation(model, validation_rows(store, digest, plan), 2)["validationLoss"]


def test_a_thinned_part_holds_so_many_of_each_answer(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    plan = lean_plan(large, data_file, [{**DISTILL, "maxImbalance": 1}])
    made = run_plan(plan, store)
    # A third of 240 messages is spam, 0.4 of them train: 32 of each kind.
    assert "64 rows" in made.steps[0].detail


@pytest.mark.parametrize("selection", ["Influence", "First"])
def test_prune_keeps_layers_bit_for_bit_and_renumbers_them(
    store: Store, large: CompressResult, data_file: Path, selection: str
) -> None:
    made = run_plan(lean_plan(large, data_file, [{**PRUNE, "selection": selection}]), store)
    kept = [int(index) for index in made.steps[0].detail.split("(")[1].split(")")[0].split(",")]
    assert len(kept) == 2 and kept[0] == 0
    assert made.steps[0].modules_changed == 2
    before, after = weights(store, large.artifact), weights(store, made.artifact)
    for new, old in enumerate(kept):
        for name in (name for name in before if name.startswith(f"model.layers.{old}.")):
            assert torch.equal(before[name], after[name.replace(f"layers.{old}.", f"layers.{new}.")])
    model = hf.load_model(store.open(made.artifact).path)
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1]
    assert model.config.num_hidden_layers == 2


def test_influence_is_least_for_a_layer_that_does_nothing(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "idle", texts)
    tensors = load_file(str(folder / hf.WEIGHTS))
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        tensors[f"model.layers.2.{name}.weight"].zero_()
    from safetensors.torch import save_file

    save_file(tensors, str(folder / hf.WEIGHTS), metadata={"format": "pt"})
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    made = run_plan(lean_plan(start, data_file, [{"type": "Prune", "keepLayers": 3}]), store)
    assert made.steps[0].figures["influence.2"] == pytest.approx(0, abs=1e-9)
    assert "(0,1,3)" in made.steps[0].detail


def test_distillation_brings_the_student_nearer_to_the_teacher(
    store: Store, model_folder: Path, data_file: Path
) -> None:
    settings = {"epochs": "4", "learningRate": "0.01"}
    tuned = run_plan(
        plan_of(source={"uri": f"file:{model_folder}"}, dataSets=[data_set(data_file)], finetune=settings),
        store,
    )
    plan = lean_plan(tuned, data_file, [PRUNE, {**DISTILL, "labelWeight": "0", "epochs": "6"}])
    pruned = run_plan(plan.model_copy(update={"steps": plan.steps[:1]}), store)
    made = run_plan(plan, store)
    assert made.steps[0].cached
    teacher, before, after = (
        hf.load_model(store.open(digest).path) for digest in (tuned.artifact, pruned.artifact, made.artifact)
    )
    rows = validation_rows(store, tuned.artifact, plan)
    ids, where, columns, _ = collate(rows, range(len(rows)), 2)

    def distance(model: Any) -> float:
        with torch.no_grad():
            told, said = (answer_logits(m, ids, where, columns).log_softmax(-1) for m in (teacher, model))
        return float((told.exp() * (told - said)).sum(-1).mean())

    assert distance(after) < 0.5 * distance(before)
    name = "model.embed_tokens.weight"
    assert torch.equal(weights(store, pruned.artifact)[name], weights(store, made.artifact)[name])


@pytest.mark.parametrize("algorithm", ["RTN", "GPTQ"])
@pytest.mark.parametrize("scheme", ["W8A8", "W4A16"])
def test_quantised_weights_are_integers_near_the_float_ones(
    store: Store, large: CompressResult, data_file: Path, scheme: str, algorithm: str
) -> None:
    step = {"type": "Quantize", "scheme": scheme, "algorithm": algorithm, "samples": 16}
    made = run_plan(lean_plan(large, data_file, [step]), store)
    assert made.steps[0].modules_changed == 28
    assert made.parameters == large.parameters
    folder = store.open(made.artifact).path
    with safe_open(str(folder / hf.WEIGHTS), framework="pt") as file:
        stored = {name: str(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    whole = [name for name in stored if ".layers." in name and "norm" not in name]
    integers = {name for name in whole if stored[name] in ("I8", "I32") and not name.endswith("_shape")}
    assert len(integers) == 28
    assert {stored[name] for name in stored if name not in integers and not name.endswith("_shape")} == {
        "BF16"
    }
    config = hf.read_json(folder / hf.CONFIG)["quantization_config"]
    group = config["config_groups"]["group_0"]
    assert group["weights"]["num_bits"] == {"W8A8": 8, "W4A16": 4}[scheme]
    if scheme == "W8A8":
        assert group["input_activations"]["dynamic"] and group["input_activations"]["strategy"] == "token"
    else:
        assert group["weights"]["group_size"] == 32
    floats = weights(store, large.artifact)
    model = hf.load_model(folder)
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.weight"):
            error = (parameter - floats[name].float()).abs().max() / floats[name].float().abs().max()
            # RTN is off by half a step at most; GPTQ moves weights further to save the output.
            steps = {"W8A8": 127, "W4A16": 7}[scheme]
            assert 0 < float(error) < {"RTN": 0.55, "GPTQ": 4.0}[algorithm] / steps, name


def inputs_of(model: Any, module: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> list[Any]:
    """Return what a module of a model is given for each text."""
    seen: list[Any] = []
    hook = module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    with torch.no_grad():
        for _, text in texts:
            model.model(torch.tensor([tokenizer.encode(text, add_special_tokens=False)]))
    hook.remove()
    return seen


def test_gptq_is_nearer_to_the_float_model_than_rtn(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "wide", texts, hidden_size=64, intermediate_size=128, head_dim=32)
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}, dataSets=[data_set(data_file)],
                             finetune={"epochs": "2", "learningRate": "0.01"}), store)  # fmt: skip
    float_model = hf.load_model(store.open(start.artifact).path)
    errors = {}
    for algorithm in ("RTN", "GPTQ"):
        step = {"type": "Quantize", "scheme": "W4A16", "algorithm": algorithm, "samples": 64}
        made = run_plan(lean_plan(start, data_file, [step]), store)
        model = hf.load_model(store.open(made.artifact).path)
        tokenizer = hf.load_tokenizer(store.open(made.artifact).path)
        # What GPTQ makes small: the error of a layer's output on the inputs that calibration saw.
        theirs, ours = (m.model.layers[0].self_attn.q_proj for m in (float_model, model))
        with torch.no_grad():
            errors[algorithm] = sum(
                float((theirs(seen) - ours(seen)).pow(2).sum())
                for seen in inputs_of(float_model, theirs, tokenizer, texts)
            )
    assert errors["GPTQ"] < errors["RTN"]


def test_targets_choose_the_layers_that_are_quantised(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    step = {"type": "Quantize", "scheme": "W8A8", "targets": ["re:.*mlp.*"]}
    made = run_plan(lean_plan(large, data_file, [step]), store)
    assert made.steps[0].modules_changed == 12
    names = weights(store, made.artifact)
    assert all(("mlp" in name) == (tensor.dtype == torch.int8) for name, tensor in names.items() if "_proj.weight" in name and not name.endswith("scale"))  # fmt: skip


@pytest.mark.parametrize("family", ["Mistral", "Qwen2", "Qwen3"])
def test_every_supported_family_goes_through_every_step(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path, family: str
) -> None:
    folder = make_model(tmp_path / family, texts, family)
    start = run_plan(
        plan_of(
            source={"uri": f"file:{folder}"}, dataSets=[data_set(data_file)], finetune={"trainLayers": 2}
        ),
        store,
    )
    steps = [PRUNE, DISTILL, {"type": "Quantize", "scheme": "W8A8"}]
    made = run_plan(lean_plan(start, data_file, steps), store)
    assert [step.type for step in made.steps] == ["Prune", "Distill", "Quantize"]
    assert made.bytes < start.bytes
    assert hf.read_json(store.open(made.artifact).path / hf.CONFIG)["num_hidden_layers"] == 2


def test_a_second_run_finds_everything_and_makes_the_same(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    plan = lean_plan(large, data_file, [PRUNE, DISTILL, {"type": "Quantize", "scheme": "W8A8"}])
    first, second = run_plan(plan, store), run_plan(plan, store)
    assert [step.cached for step in first.steps] == [False] * 3
    assert [step.cached for step in second.steps] == [True] * 3
    assert second.artifact == first.artifact and second.steps[-1].artifact == first.artifact


def test_another_store_gets_the_same_bits(
    store: Store, large: CompressResult, data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    other = Store(tmp_path / "other")
    again = run_plan(plan_of(source={"uri": f"file:{model_folder}"}), other)
    assert again.artifact == large.artifact
    steps = [PRUNE, DISTILL, {"type": "Quantize", "scheme": "W4A16", "algorithm": "GPTQ", "samples": 16}]
    assert (
        run_plan(lean_plan(again, data_file, steps), other).artifact
        == run_plan(lean_plan(large, data_file, steps), store).artifact
    )


def test_a_changed_setting_or_part_runs_its_step_and_those_after_it(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path
) -> None:
    run_plan(lean_plan(large, data_file, [PRUNE, DISTILL]), store)
    slower = {**DISTILL, "learningRate": "0.005"}
    assert [step.cached for step in run_plan(lean_plan(large, data_file, [PRUNE, slower]), store).steps] == [
        True,
        False,
    ]
    # Checkpoints change the way, not the result.
    often = {**DISTILL, "checkpointSteps": 1}
    assert all(step.cached for step in run_plan(lean_plan(large, data_file, [PRUNE, often]), store).steps)
    plan = lean_plan(large, data_file, [PRUNE, DISTILL])
    shares = [
        plan.data_sets[0].model_copy(
            update={"split": plan.data_sets[0].split.model_copy(update={"train": "0.3"})}
        )
    ]
    assert not any(
        step.cached for step in run_plan(plan.model_copy(update={"data_sets": shares}), store).steps
    )


def test_the_estimate_of_memory_holds_and_is_not_absurd(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    made = run_apart(lean_plan(large, data_file, [PRUNE, DISTILL, {"type": "Quantize"}]), store)
    for step in made.steps:
        assert step.figures["peakAnonymousBytes"] <= step.estimated_memory_bytes, step.type
        assert 0 < step.peak_memory_bytes < 3 * step.estimated_memory_bytes, step.type


def test_a_quantised_model_brought_along_is_taken_as_it_is(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    made = run_plan(lean_plan(large, data_file, [{"type": "Quantize", "scheme": "W8A8"}]), store)
    folder = store.open(made.artifact).path
    brought = run_plan(plan_of(role="Lean", source={"uri": f"file:{folder}"}), store)
    assert brought.artifact == made.artifact


def test_the_training_tokens_are_those_that_the_engine_sees(store: Store, large: CompressResult) -> None:
    from leanmodel_api.parts import Example, Message
    from leanmodel_compression.encode import encode

    tokenizer = hf.load_tokenizer(store.open(large.artifact).path)
    messages = [Message(role="system", content="Spam or ham?"), Message(role="user", content="free cash")]
    row = encode(tokenizer, Example(id="a", messages=messages, text=None, answer="spam"))
    assert row is not None
    asked = tokenizer.apply_chat_template(
        [message.model_dump() for message in messages],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=False,
    )
    assert list(row.ids[: row.first]) == list(asked)
    assert tokenizer.decode(row.ids[row.first :]) == "spam<|im_end|>"
    raw = encode(tokenizer, Example(id="b", messages=None, text="free cash:", answer="spam"))
    assert raw is not None and list(raw.ids[: raw.first]) == tokenizer.encode("free cash:")
    assert json.loads(json.dumps(raw.ids)) == list(raw.ids)
