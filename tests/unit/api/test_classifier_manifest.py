"""A classifier's manifest: what fits the task, and what to write where something does not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from leanmodel_api.errors import ManifestError
from leanmodel_api.manifest import load
from leanmodel_api.plan import CompressPlan
from leanmodel_operator.jobs import large_plan, lean_plan

GOOD: dict[str, Any] = {
    "apiVersion": "leanmodel.io/v1alpha1",
    "kind": "LeanModel",
    "metadata": {"name": "spam-labels"},
    "spec": {
        "task": "text-classification",
        "dataSets": [
            {
                "name": "sms",
                "source": {"uri": "file:data/sms.tsv"},
                "format": "TSV",
                "prompt": {"text": "{msg}"},
                "answer": "{label}",
                "choices": ["ham", "spam"],
            }
        ],
        "large": {"source": {"uri": "file:encoder"}, "finetune": {"epochs": "2"}},
        "lean": {
            "steps": [
                {"type": "Prune", "method": "Depth", "keepLayers": 3, "selection": "Alternate"},
                {"type": "Distill", "objectives": ["Logits", "Hidden"], "hiddenWeight": "0.5"},
                {"type": "Export", "format": "ONNX", "precision": "Int8"},
            ]
        },
        "serving": {
            "large": {"engine": "ONNXRuntime", "maxModelLength": 256},
            "lean": {"engine": "ONNXRuntime", "maxModelLength": 256},
        },
    },
}
STEPS = "spec.lean.steps"
CASES: list[tuple[str, str, Any, str]] = [
    # path, value, field of the message, its words
    ("dataSets.0.prompt", {"user": "{msg}"}, "spec.dataSets[0].prompt.user", "write prompt.text: '{msg}'"),
    ("dataSets.0.choices", None, "spec.dataSets[0].choices", "a closed list of labels"),
    ("evaluation", {"metric": "TokenF1"}, "spec.evaluation.metric", "write one of BalancedAccuracy"),
    ("evaluation", {"gates": [{"metric": "Perplexity", "max": "9"}]}, "spec.evaluation.gates[0].metric", "LeanQuality"),
    ("lean.steps.2", {"type": "Quantize"}, f"{STEPS}[2].type", "precision: Int8"),
    ("lean.steps.2", {"type": "Heal"}, f"{STEPS}[2].type", "not supported yet with task text-classification"),
    ("lean.steps.0", {"type": "Prune", "keepLayers": 3}, f"{STEPS}[0].selection", "write one of Alternate, First"),
    ("lean.steps.0", {"type": "Prune", "method": "Wanda", "ratio": "0.5"}, f"{STEPS}[0].method", "write Depth"),
    ("lean.steps.1", {"type": "Distill", "objectives": ["Hidden"], "labelWeight": "0"}, f"{STEPS}[1].objectives", "teaches the labels to nobody"),
    ("lean.steps.1", {"type": "Distill", "objectives": ["Hidden"], "attentionWeight": "2"}, f"{STEPS}[1].attentionWeight", "without Attention in objectives"),
    ("lean.steps.1", {"type": "Distill", "objectives": ["Hidden"], "relationHeads": 4}, f"{STEPS}[1].relationHeads", "without Attention in objectives"),
    ("lean.steps.1", {"type": "Distill", "layerMap": [{"student": 0, "teacher": 1}]}, f"{STEPS}[1].layerMap", "without Hidden or Attention"),
    ("lean.steps.1", {"type": "Distill", "objectives": ["Logits", "Logits"]}, f"{STEPS}[1].objectives", "name each once"),
    ("lean.steps.2", {"type": "Export", "format": "GGUF"}, f"{STEPS}[2].format", "ONNX"),
    ("lean.steps.1", {"type": "Linear"}, f"{STEPS}[1].type", "Linear uses nothing of other steps, after the Prune of steps[0]; remove Prune"),
    ("lean.steps.1", {"type": "Distill", "earlyStopping": {}}, f"{STEPS}[1].earlyStopping.patience", "is missing"),
    ("lean.steps.1", {"type": "Distill", "hiddenWeight": "1"}, f"{STEPS}[1].hiddenWeight", "remove it"),
    ("lean.steps.1", {"type": "Export"}, f"{STEPS}[2].type", "put Export last"),
    ("lean.steps.2", {"type": "Export", "format": "GGUF"}, f"{STEPS}[2].format", "write ONNX"),
    ("lean.steps.2", {"type": "Export", "precision": "Float16"}, f"{STEPS}[2].precision", "write Float32 or Int8"),
    ("lean.steps.1", {"type": "Distill", "quantizationAware": "W8A8"}, f"{STEPS}[1].quantizationAware", "remove it"),
    ("large.finetune", {"method": "LoRA"}, "spec.large.finetune.method", "write Full"),
    ("large.finetune", {"trainLayers": 2}, "spec.large.finetune.trainLayers", "remove it"),
    ("serving.large.engine", "vLLM", "spec.serving.large.engine", "SqueezeBERT); write ONNXRuntime"),
    ("serving", {}, "spec.serving.lean.engine", "write ONNXRuntime"),
    ("serving.lean.dtype", "BFloat16", "spec.serving.lean.dtype", "write Float32"),
]  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    place: Any = document["spec"]
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        place = place[part]
    place[last] = value
    return document


def test_a_classifier_is_taken() -> None:
    assert load(GOOD).spec.task == "text-classification"


@pytest.mark.parametrize(
    ("path", "value", "field", "words"), CASES, ids=[f"{c[2]} {c[3][:20]}" for c in CASES]
)
def test_what_does_not_fit_names_field_and_remedy(path: str, value: Any, field: str, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load(changed(path, value))
    lines = [line for line in str(caught.value).splitlines() if line.startswith(f"{field}:")]
    assert any(words in line for line in lines), str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("lean.steps", [{"type": "Export"}], f"{STEPS}[0].format"),
        ("lean.steps", [{"type": "Prune", "keepLayers": 3, "selection": "Alternate"}], f"{STEPS}[0].selection"),
        ("lean.steps", [{"type": "Distill", "hiddenWeight": "1"}], f"{STEPS}[0].hiddenWeight"),
        ("serving", {"lean": {"engine": "ONNXRuntime"}}, "spec.serving.lean.engine"),
    ],
)  # fmt: skip
def test_a_generator_is_told_what_only_classifiers_have(path: str, value: Any, field: str) -> None:
    document = changed(path, value)
    document["spec"]["task"] = "text-generation"
    with pytest.raises(ManifestError) as caught:
        load(document)
    assert field in {issue.field for issue in caught.value.issues}


def test_a_cluster_takes_it_too() -> None:
    assert load(GOOD, "Cluster").spec == load(GOOD).spec


def test_plans_carry_the_task_and_those_of_generators_nothing_new() -> None:
    model = load(GOOD)
    assert large_plan(model, 2, ".").task == "text-classification"
    lean = lean_plan(model, None, 2, ".")
    assert lean is not None and lean.task == "text-classification"
    plain = CompressPlan.model_validate({"name": "a", "role": "Large", "limits": {"memoryBytes": 1}})
    assert "task" not in plain.to_json()
