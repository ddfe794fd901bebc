"""The table of families is true: what it has is taken, and what it has not is refused before any work, with what to write.

The manifests go the way of `leanmodel estimate`: schema and rules first, then the steps' own checks on configurations.
No weights are there.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from leanmodel_api.errors import InputError, Issue
from leanmodel_api.manifest import load
from leanmodel_compression.estimate import all_tasks
from leanmodel_compression.families import FAMILIES as DECODERS
from leanmodel_operator.jobs import large_plan, lean_plan
from leanmodel_store.artifacts import Store

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tools"))
from families_table import REFUSED, TASKS, cell, columns, families  # noqa: E402

CLASSIFY, EMBED = "text-classification", "text-embedding"
SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 400,
    "max_position_embeddings": 256,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": {"n_embd": 64, "n_inner": 128, "n_layer": 4, "n_head": 4, "n_positions": 256, "model_type": "gpt2"},
    "Gemma3ForCausalLM": {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8, "model_type": "gemma3_text"},
    "DistilBert": {"dim": 64, "hidden_dim": 128, "n_layers": 4, "n_heads": 4},
}  # fmt: skip
TRAINING = {"epochs": "1", "maxLength": 32}
STEPS: dict[tuple[str, str], dict[str, Any]] = {
    ("Finetune", ""): TRAINING,
    ("Prune", "Depth"): {"keepLayers": 2, "selection": "First"},
    ("Prune", "Magnitude"): {"ratio": "0.5"},
    ("Prune", "Wanda"): {"ratio": "0.5"},
    ("Prune", "SparseGPT"): {"ratio": "0.5"},
    ("Prune", "Neurons"): {"ratio": "0.5"},
    ("Prune", "Heads"): {"ratio": "0.5"},
    ("Prune", "Width"): {"ratio": "0.5"},
    ("Scratch", ""): {"layers": 2, "hiddenSize": 64, "intermediateSize": 96, "heads": 2},
    ("Factorize", ""): {"ratio": "0.25"},
    ("Share", ""): {"layersPerGroup": 2},
    ("Distill", ""): TRAINING,
    ("Heal", ""): TRAINING,
    ("Trim", ""): {},
    ("Quantize", ""): {"scheme": "W8A8", "algorithm": "RTN"},
    ("Export", ""): {"format": "GGUF"},
    ("Linear", ""): {},
}
"""A step of each column, as far as it takes to be asked for."""
VECTORS = {"type": "Distill", "objectives": ["Embeddings"], **TRAINING}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration of each row's model, and messages."""
    folder = tmp_path_factory.mktemp("configurations")
    for name, task, _, decoder in families():
        place = folder / f"{decoder or name}-{task}"
        place.mkdir()
        config = SIZES | {"num_key_value_heads": 2} if decoder else dict(SIZES)
        config |= {"model_type": (decoder.removesuffix("ForCausalLM") or name).lower()}
        config |= {"architectures": [decoder or f"{name}Model"]} | OWN.get(decoder or name, {})
        (place / "config.json").write_text(json.dumps(config))
        if task == EMBED:
            kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
            modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
            (place / "modules.json").write_text(json.dumps(modules))
            (place / "1_Pooling").mkdir()
            (place / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    rows = [f"{('ham', 'spam')[at % 2]}\tmessage {at} of many\n" for at in range(200)]
    (folder / "messages.tsv").write_text("".join(["label\tmsg\n", *rows]))
    return folder


def document(name: str, task: str | None, decoder: str) -> dict[str, Any]:
    """Return a manifest of a row of the table that can be carried out."""
    data: dict[str, Any] = {
        "name": "sms", "source": {"uri": "file:messages.tsv"}, "format": "TSV", "prompt": {"text": "{msg}"},
    }  # fmt: skip
    if task != EMBED:
        data |= {"answer": "{label}", "choices": ["ham", "spam"]}
    engine = {"engine": "vLLM" if task is None else "ONNXRuntime", "maxModelLength": 128}
    large: dict[str, Any] = {"source": {"uri": f"file:{decoder or name}-{task}"}}
    if task == CLASSIFY:
        large["finetune"] = dict(TRAINING)
    vectors = task == EMBED
    steps = [
        {"type": "Prune", **STEPS["Prune", "Depth"]},
        VECTORS if vectors else {"type": "Distill", **TRAINING},
    ]
    return {
        "apiVersion": "leanmodel.io/v1alpha1", "kind": "LeanModel", "metadata": {"name": "asked"},
        "spec": {
            "task": task or "text-generation", "dataSets": [data], "large": large, "lean": {"steps": steps},
            "routing": {"strategy": "Fixed", "fixed": "Lean"} if vectors else {},
            "serving": {"large": dict(engine), "lean": dict(engine)},
        },
    }  # fmt: skip


def with_step(asked: dict[str, Any], task: str | None, column: tuple[str, str]) -> dict[str, Any]:
    """Return the manifest with a column's step alone, and what it cannot be without."""
    changed, (kind, method) = copy.deepcopy(asked), column
    fields = STEPS[column]
    if kind == "Finetune":
        changed["spec"]["large"]["finetune"] = fields
        return changed
    if kind == "Export" and task is not None:
        fields = {"format": "ONNX", "precision": "Int8"}
    step = {"type": kind, **({"method": method} if method else {}), **fields}
    if kind == "Distill" and task == EMBED:
        step = VECTORS
    after = [VECTORS] if kind in ("Prune", "Scratch") and task == EMBED else []
    if kind == "Scratch" and task != EMBED:
        after = [{"type": "Distill", **TRAINING}]
    changed["spec"]["lean"]["steps"] = [step, *after]
    return changed


def issues(asked: dict[str, Any], home: Path, store: Path) -> list[Issue]:
    """Return why a manifest is refused, empty where it would be begun."""
    try:
        model = load(asked)
        plans = [large_plan(model, 1, str(home)), lean_plan(model, None, 1, str(home))]
        all_tasks([plan for plan in plans if plan is not None], Store(store))
    except InputError as error:
        found = list(error.issues)
    else:
        found = []
    assert not list(store.rglob("*.safetensors"))
    return found


def holds(found: list[Issue], field: str) -> None:
    """Hold a refusal against what users are promised: the field, what stands there, what to write."""
    mine = [issue for issue in found if issue.field.startswith(field)]
    assert mine, [str(issue) for issue in found]
    assert all(issue.found and issue.advice for issue in found), found


ROWS = [(name, task, decoder) for name, task, _, decoder in families()]
CELLS = [(*row, column) for row in ROWS for column in columns()]


def named(value: Any) -> str:
    return "-".join(filter(None, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(("name", "task", "decoder", "column"), CELLS, ids=named)
def test_a_cell_says_whether_a_step_is_taken_or_refused(
    home: Path, tmp_path: Path, name: str, task: Any, decoder: str, column: tuple[str, str]
) -> None:
    found = issues(with_step(document(name, task, decoder), task, column), home, tmp_path)
    # The linear model has a row of its own.
    yes = cell(task, column, name, decoder) != "–" or (task == CLASSIFY and column[0] == "Linear")
    if yes:
        assert not found, [str(issue) for issue in found]
    else:
        holds(found, "spec.large.finetune" if column[0] == "Finetune" else "spec.lean.steps[0]")


@pytest.mark.parametrize(
    ("decoder", "asked"), [(name, asked) for name, one in DECODERS.items() for asked in one.refusals], ids=named
)  # fmt: skip
def test_a_decoders_exceptions_are_refused_in_the_tables_words(
    home: Path, tmp_path: Path, decoder: str, asked: tuple[str, str, str]
) -> None:
    (kind, member, value), family = asked, DECODERS[decoder]
    column = (kind, value if member == "method" else "")
    manifest = with_step(document(family.name, None, decoder), None, column)
    step = manifest["spec"]["lean"]["steps"][0]
    step |= {member: value} | ({"scheme": "W4A16"} if value == "AWQ" else {})
    found = issues(manifest, home, tmp_path)
    holds(found, f"spec.lean.steps[0].{member}")
    (issue,) = (one for one in found if one.field == f"spec.lean.steps[0].{member}")
    refusal = family.refusals[asked]
    assert refusal.why in issue.found and issue.advice == refusal.instead


def encoder_as_gguf(folder: Path) -> Path:
    """Write the head of a file as llama.cpp has it of an ALBERT-like encoder."""
    path = folder / "encoder.gguf"
    writer = GGUFWriter(str(path), "bert")
    writer.add_block_count(4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def change(asked: str, task: str, spec: dict[str, Any], folder: Path) -> tuple[str, str]:
    """Ask for what a row of the second table refuses; return the field that is refused, and the advice's words."""
    if asked == "vllm":
        spec["serving"]["lean"]["engine"] = "vLLM"
        return "spec.serving.lean.engine", "write ONNXRuntime"
    if asked == "gguf":
        spec["lean"]["steps"] = [*spec["lean"]["steps"], {"type": "Export", "format": "GGUF"}]
        return "spec.lean.steps[2].format", "write ONNX"
    if asked == "gguf-source":
        spec["large"]["source"]["uri"] = f"file:{encoder_as_gguf(folder)}"
        return "spec.large.source", "safetensors"
    if asked == "quantize":
        spec["lean"]["steps"] = [*spec["lean"]["steps"], {"type": "Quantize", "scheme": "W8A8"}]
        return "spec.lean.steps[2].type", "{type: Export, precision: Int8}"
    if asked == "unigram":
        shutil.copytree(folder / f"Albert-{task}", source := folder / f"unigram-{task}")
        (source / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}))
        spec["large"]["source"]["uri"] = f"file:{source.name}"
        spec["lean"]["steps"].append({"type": "Trim"})
        return "spec.lean.steps[2].type", "remove the step"
    if asked == "decoder":
        spec["large"]["source"]["uri"] = "file:LlamaForCausalLM-None"
        return "spec.large.source", "write task: text-generation"
    if asked == "own":
        spec["lean"] = {"source": {"uri": "file:DistilBert-text-embedding"}}
        return "spec.lean.source", "lean.steps"
    if asked == "cascade":
        spec["routing"] = {"strategy": "Cascade"}
        return "spec.routing.strategy", "strategy: Fixed"
    if asked == "learned":
        # Drawn otherwise, so that what one holds back the other teaches.
        spec["dataSets"].append(spec["dataSets"][0] | {"name": "copied", "split": {"seed": 1}})
        spec["evaluation"] = {"dataSet": "sms"}
        for step in spec["lean"]["steps"]:
            step["dataSet"] = "copied"
        return "spec.dataSets[1]", "name one data set for both"
    assert asked == "onnx", f"the second table's {asked!r} is asked for by no test"
    spec["serving"]["lean"]["engine"] = "ONNXRuntime"
    return "spec.serving.lean.engine", "write vLLM"


ENCODERS = [(name, str(task)) for name, task, decoder in ROWS if not decoder]
ASKED = [
    *((asked, name, task) for asked in ("vllm", "gguf", "gguf-source", "quantize") for name, task in ENCODERS),
    *((asked, "Bert", EMBED) for asked in ("own", "cascade", "decoder")),
    *(("unigram", "Albert", task) for task in (CLASSIFY, EMBED)),
    ("decoder", "Bert", CLASSIFY),
    ("onnx", "Llama", None),
    ("learned", "Llama", None),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "name", "task"), ASKED, ids=named)
def test_what_no_family_has_is_refused_with_the_alternative(
    home: Path, tmp_path: Path, asked: str, name: str, task: str | None
) -> None:
    manifest = document(name, task, "LlamaForCausalLM" if name == "Llama" else "")
    assert issues(copy.deepcopy(manifest), home, tmp_path) == []
    field, advice = change(asked, str(task), manifest["spec"], home)
    found = issues(manifest, home, tmp_path)
    holds(found, field)
    assert any(issue.field.startswith(field) and advice in issue.advice for issue in found), found


def test_every_row_of_the_second_table_is_asked_for() -> None:
    assert {asked for asked, _, _ in ASKED} == REFUSED.keys()
    assert {task for _, task, _ in ROWS} == TASKS.keys()
