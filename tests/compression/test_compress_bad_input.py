"""What is wrong is said before any work, with the field and what to write."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, environment, lean_plan, make_model, plan_of, run_plan
from safetensors.torch import load_file, save_file

from leanmodel_api.errors import InputError, ManifestError, RefusedError
from leanmodel_api.plan import CompressPlan, CompressResult, JobLimits
from leanmodel_compression import hf, machine
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

PRUNE = {"type": "Prune", "keepLayers": 2}
WANDA = {"type": "Prune", "method": "Wanda", "ratio": "0.5"}
DISTILL = {"type": "Distill"}
QUANTIZE = {"type": "Quantize"}


def untouched(store: Store, before: set[str]) -> bool:
    """Say whether no artifact came and no checkpoint began."""
    return objects(store) == before and not any((store.root / "scratch").iterdir())


def objects(store: Store) -> set[str]:
    return {path.name for path in (store.root / "objects").iterdir()}


@pytest.mark.parametrize(
    ("steps", "field", "words"),
    [
        ([QUANTIZE, PRUNE], "spec.lean.steps[1].type", "put Quantize last"),
        ([QUANTIZE, DISTILL], "spec.lean.steps[1].type", "put Quantize last"),
        ([WANDA, DISTILL], "spec.lean.steps[1].type", "would fill the zeros again, after the Wanda pruning of steps[0]"),
        ([WANDA, {**QUANTIZE, "algorithm": "GPTQ"}], "spec.lean.steps[1].algorithm", "write RTN"),
        ([{**WANDA, "ratio": "0"}], "spec.lean.steps[0].ratio", "found 0"),
        ([{**WANDA, "ratio": "0.01"}], "spec.lean.steps[0].ratio", "takes none of 32 columns"),
        ([{**WANDA, "structure": "2:4"}], "spec.lean.steps[0].ratio", "which is half"),
        ([{**WANDA, "keepLayers": 2}], "spec.lean.steps[0].keepLayers", "it belongs to Depth"),
        ([{**WANDA, "ignore": []}], "spec.lean.steps[0].ignore", "lm_head is the token table"),
        ([{**WANDA, "targets": ["re:.*nothing.*"]}], "spec.lean.steps[0].targets", "match none"),
        ([{"type": "Trim"}, DISTILL], "spec.lean.steps[1].type", "put Distill before it"),
        ([{"type": "Trim"}, {"type": "Heal"}], "spec.lean.steps[1].labelWeight", 'write "1", or put Heal before it'),
        ([{"type": "Trim", "minVocabulary": 99999}], "spec.lean.steps[0].minVocabulary", "99999 tokens at least"),
        ([{"type": "Prune", "method": "Width", "ratio": "0.01"}], "spec.lean.steps[0].ratio", "takes none of 32 channels"),
        ([PRUNE, {**QUANTIZE, "scheme": "W4A16", "groupSize": 48}], "spec.lean.steps[1].groupSize", "write one of 32, 16"),
        ([{**QUANTIZE, "scheme": "W4A16", "groupSize": 128}], "spec.lean.steps[0].groupSize", "input width 32 of"),
        ([{**QUANTIZE, "scheme": "W8A16", "groupSize": 32}], "spec.lean.steps[0].groupSize", "one scale per row"),
        ([{**QUANTIZE, "algorithm": "AWQ"}], "spec.lean.steps[0].algorithm", "write scheme: W4A16"),
        ([{**QUANTIZE, "targets": ["re:.*nothing.*"]}], "spec.lean.steps[0].targets", "match none"),
        ([{**QUANTIZE, "ignore": []}], "spec.lean.steps[0].ignore", "lm_head is the token table"),
        ([{"type": "Factorize", "ratio": "0.2", "targets": ["re:.*nothing.*"]}], "spec.lean.steps[0].targets", "match none"),
        ([{"type": "Prune", "keepLayers": 4}], "spec.lean.steps[0].keepLayers", "removes none"),
        ([{"type": "Prune", "ratio": "0.1"}], "spec.lean.steps[0].ratio", "removes none"),
        ([{"type": "Prune", "keepLayers": 1, "protectLast": 1}], "spec.lean.steps[0].keepLayers", "protect fewer"),
        ([PRUNE, {"type": "Prune", "keepLayers": 2}], "spec.lean.steps[1].keepLayers", "model's 2 layers"),
        ([{**DISTILL, "objectives": ["Attention"], "relationHeads": 5}], "spec.lean.steps[0].relationHeads", "do not divide"),
        ([{**DISTILL, "dataSet": "other"}], "spec.lean.steps[0].dataSet", "write one of messages"),
        ([{**DISTILL, "maxExamples": 3}], "spec.lean.steps[0].dataSet", "3 rows"),
    ],
    ids=lambda value: value if isinstance(value, str) and "spec" in value else "",
)  # fmt: skip
def test_a_bad_step_is_named_before_any_work(
    store: Store, large: CompressResult, data_file: Path, steps: list[dict[str, Any]], field: str, words: str
) -> None:
    before = objects(store)
    with pytest.raises(ManifestError) as caught:
        run_plan(lean_plan(large, data_file, steps), store)
    assert any(issue.field == field and words in str(issue) for issue in caught.value.issues), str(
        caught.value
    )
    # The data set's own file may have been taken into the store; nothing was computed.
    assert len(objects(store) - before) <= 1
    assert not any((store.root / "scratch").iterdir())


def test_group_128_of_smollm2_is_refused_with_the_sizes_that_fit() -> None:
    from leanmodel_api.steps import Quantize
    from leanmodel_compression.shapes import ModelShape
    from leanmodel_compression.steps import REGISTRY
    from leanmodel_compression.steps.protocol import Task

    shape = ModelShape("LlamaForCausalLM", 30, 576, 1536, 9, 3, 64, 49152, True, 8192)
    spec = Quantize(type="Quantize", scheme="W4A16", group_size=128)
    issue = REGISTRY["Quantize"].issues(Task(spec, "spec.lean.steps[0]", shape))[0]
    assert "576 of 180 layers such as model.layers.0.self_attn.q_proj" in issue.found
    assert issue.advice == "write one of 96, 64, 48, 32, 16"


def test_two_of_four_wants_widths_of_fours_and_names_the_layer() -> None:
    from leanmodel_api.steps import Prune
    from leanmodel_compression.shapes import ModelShape
    from leanmodel_compression.steps import step_of
    from leanmodel_compression.steps.protocol import Task

    shape = ModelShape("LlamaForCausalLM", 2, 64, 130, 2, 2, 32, 400, True, 256)
    spec = Prune(type="Prune", method="Magnitude", structure="2:4")
    (issue,) = step_of(spec).issues(Task(spec, "spec.lean.steps[0]", shape))
    assert issue.field == "spec.lean.steps[0].structure"
    assert "2 layers such as model.layers.0.mlp.down_proj have 130 columns" in issue.found


def test_a_quantised_model_is_not_quantised_again(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    made = run_plan(lean_plan(large, data_file, [QUANTIZE]), store)
    again = lean_plan(made, data_file, [PRUNE])
    with pytest.raises(ManifestError, match="already quantised .compressed-tensors."):
        run_plan(again, store)


def test_an_unknown_architecture_is_named(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "strange", texts)
    config = hf.read_json(folder / hf.CONFIG)
    hf.write_json(folder / hf.CONFIG, {**config, "architectures": ["FalconForCausalLM"]})
    plan = plan_of(source={"uri": f"file:{folder}"}, dataSets=[data_set(data_file)], finetune={})
    with pytest.raises(ManifestError, match="FalconForCausalLM is not supported yet"):
        run_plan(plan, store)


def test_missing_weights_are_an_error_and_leave_no_artifact(
    store: Store, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "holed", texts)
    tensors = load_file(str(folder / hf.WEIGHTS))
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, str(folder / hf.WEIGHTS), metadata={"format": "pt"})
    with pytest.raises(InputError, match="model.layers.1.mlp.up_proj"):
        run_plan(plan_of(source={"uri": f"file:{folder}"}), store)


def test_too_little_memory_is_refused_with_need_and_limit(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    plan = lean_plan(large, data_file, [DISTILL])
    plan = plan.model_copy(update={"limits": JobLimits(memory_bytes=500 * 2**20, threads=1)})
    with pytest.raises(RefusedError) as caught:
        run_plan(plan, store)
    issue = caught.value.issues[0]
    assert issue.field == "spec.jobs.compress.memory"
    assert "the limit is 500 MiB" in issue.found and issue.advice.startswith("write at least ")


@pytest.mark.parametrize(
    ("left", "field", "words"),
    [
        (machine.Machine(300 * 2**20, 2**40), "spec.jobs.compress.memory", "300 MiB free"),
        (machine.Machine(2**40, 2**20), "spec.store.uri", "1 MiB free"),
    ],
    ids=["memory", "disk"],
)
def test_a_machine_that_is_too_small_is_refused(
    store: Store, large: CompressResult, data_file: Path, monkeypatch: pytest.MonkeyPatch,
    left: machine.Machine, field: str, words: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(machine, "look", lambda root: left)
    with pytest.raises(RefusedError) as caught:
        run_plan(lean_plan(large, data_file, [DISTILL]), store)
    assert caught.value.issues[0].field == field and words in caught.value.issues[0].found


def test_a_loss_that_is_not_a_number_names_the_learning_rate(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "broken", texts)
    tensors = load_file(str(folder / hf.WEIGHTS))
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, str(folder / hf.WEIGHTS), metadata={"format": "pt"})
    plan = plan_of(source={"uri": f"file:{folder}"}, dataSets=[data_set(data_file)], finetune={})
    with pytest.raises(
        InputError, match=r"spec\.large\.finetune\.learningRate: the loss became nan .* step 1 of 6"
    ):
        run_plan(plan, store)


def test_a_tokenizer_of_another_model_is_refused_before_any_work(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "mixed", texts, vocab_size=300)
    plan = plan_of(source={"uri": f"file:{folder}"}, dataSets=[data_set(data_file)], finetune={})
    with pytest.raises(
        ManifestError, match="its tokenizer is another model's: .* beyond the 300 rows"
    ) as caught:
        run_plan(plan, store)
    assert caught.value.issues[0].field == "spec.large.source"
    assert not any((store.root / "scratch").iterdir())
    # What was only added by name, and no text becomes, is let be: Gemma's text models name images' tokens.
    words = hf.read_json(folder / "tokenizer.json")
    words["added_tokens"] = [
        {"id": number, "content": word, "special": True}
        for word, number in words["model"]["vocab"].items()
        if number >= 300
    ]
    hf.write_json(folder / "tokenizer.json", words)
    assert hf.beyond(folder, 300) == []


def test_a_teacher_with_other_tokens_is_refused() -> None:
    from leanmodel_api.steps import Distill
    from leanmodel_compression.batches import Row, Rows
    from leanmodel_compression.shapes import ModelShape
    from leanmodel_compression.steps import REGISTRY
    from leanmodel_compression.steps.protocol import Task

    student = ModelShape("LlamaForCausalLM", 2, 64, 128, 2, 2, 32, 400, True, 256)
    teacher = ModelShape("LlamaForCausalLM", 4, 64, 128, 2, 2, 32, 500, True, 256)
    rows = Rows(tuple(Row((1, 2, 3), 1) for _ in range(8)), ())
    spec = Distill(type="Distill", max_length=64)
    (issue,) = REGISTRY["Distill"].issues(Task(spec, "spec.lean.steps[0]", student, 0, rows, teacher))
    assert "differ in vocabulary (500 and 400 tokens)" in issue.found


def test_code_that_comes_with_a_model_is_never_run(
    store: Store, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    folder, trace = make_model(tmp_path / "own", texts), tmp_path / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    config = hf.read_json(folder / hf.CONFIG)
    mapped = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    hf.write_json(folder / hf.CONFIG, {**config, "model_type": "own", "auto_map": mapped})
    with pytest.raises(InputError, match="'own' is unknown to transformers, and the code .* is never run"):
        run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    # A type that transformers knows is built by its own class, whatever the configuration names (as Phi-3's does).
    known = tmp_path / "known"
    shutil.copytree(folder, known)
    hf.write_json(known / hf.CONFIG, {**config, "auto_map": mapped})
    made = run_plan(plan_of(source={"uri": f"file:{known}"}), store)
    stored = store.open(made.artifact).path
    assert not trace.exists() and not list(stored.glob("*.py"))
    assert "auto_map" not in hf.read_json(stored / hf.CONFIG)


def test_a_chat_needs_a_template(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "plain", texts)
    (folder / "chat_template.jinja").unlink()
    plan = plan_of(source={"uri": f"file:{folder}"}, dataSets=[data_set(data_file)], finetune={})
    with pytest.raises(
        ManifestError, match=r"spec\.dataSets\[0\]\.prompt\.user: the model has no chat template"
    ):
        run_plan(plan, store)


def test_the_lean_plan_is_checked_before_the_large_model_is_worked_on(
    store: Store, model_folder: Path, data_file: Path
) -> None:
    plan = plan_of(source={"uri": f"file:{model_folder}"}, dataSets=[data_set(data_file)], finetune={})
    nowhere = CompressResult(name="x", role="Large", plan="p", artifact="sha256:" + "0" * 64, bytes=0)
    lean = lean_plan(nowhere, data_file, [{**QUANTIZE, "scheme": "W4A16", "groupSize": 48}])
    with pytest.raises(ManifestError, match=r"spec\.lean\.steps\[0\]\.groupSize"):
        run_plan(plan, store, [lean])
    assert not any((store.root / "scratch").iterdir())
    fine = lean_plan(nowhere, data_file, [PRUNE, DISTILL, {**QUANTIZE, "scheme": "W4A16"}])
    run_plan(plan, store, [fine])


def test_exit_codes_and_messages_of_the_entry_point(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path
) -> None:
    def run(plan: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "plan.json").write_text(plan)
        command = [sys.executable, "-m", "leanmodel_compression", "--plan", str(tmp_path / "plan.json")]
        command += ["--store", str(store.root), "--result", str(tmp_path / "result.json")]
        return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=240)

    plan = lean_plan(large, data_file, [DISTILL])
    unknown = run(json.dumps({**json.loads(plan.to_json()), "colour": "red"}))
    assert unknown.returncode == 2 and "colour" in unknown.stderr
    small = plan.model_copy(update={"limits": JobLimits(memory_bytes=2**20, threads=1)})
    refused = run(small.to_json())
    assert refused.returncode == 3 and "spec.jobs.compress.memory" in refused.stderr
    assert '"state":"failed"' in refused.stdout.splitlines()[-1]
    bad = run(lean_plan(large, data_file, [QUANTIZE, PRUNE]).to_json())
    assert bad.returncode == 2 and "put Quantize last" in bad.stderr
    assert not (tmp_path / "result.json").exists()


def test_a_plan_wants_a_start() -> None:
    from leanmodel_compression.checks import plan_issues

    assert plan_issues(plan_of())[0].advice == "give exactly one of them"
    assert isinstance(plan_of(), CompressPlan) and torch.get_num_threads() == 1


def test_a_data_set_that_teaches_what_the_proof_holds_back_is_refused(
    store: Store, model_folder: Path, data_file: Path, tmp_path: Path
) -> None:
    """Another data set has some of the proof's messages, with other white space and another split."""
    rows = data_file.read_text().splitlines()
    copied = [rows[0], *(row.replace(" ", "  ") for row in rows[1:100]), *(f"ham\tfresh {at}" for at in range(60)), "spam\tfresh cash"]  # fmt: skip
    other = tmp_path / "other.tsv"
    other.write_text("\n".join(copied) + "\n")
    sets = [data_set(other, name="mine", split={"seed": 5}), data_set(data_file)]
    plan = plan_of(source={"uri": f"file:{model_folder}"}, finetune={"dataSet": "mine", "epochs": "1"}, dataSets=sets, proofDataSet="messages")  # fmt: skip
    with pytest.raises(InputError) as error:
        run_plan(plan, store)
    words = str(error.value)
    assert words.startswith("spec.dataSets[0].source: it teaches ")
    assert "that data set 'messages' holds back for the proof, such as line " in words
    assert not any(row.partition("\t")[2] in words for row in rows[1:])
    # The proof's own data set may teach: its parts share no text.
    own = plan_of(source={"uri": f"file:{model_folder}"}, finetune={"dataSet": "messages", "epochs": "1", "maxExamples": 16}, dataSets=sets, proofDataSet="messages")  # fmt: skip
    assert run_plan(own, store).steps[-1].type == "Finetune"
