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


def searched(**budget: Any) -> dict[str, Any]:
    return {"search": {"budget": budget}}


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
    ("lean", searched(), "spec.lean.search.budget", "has none of bytes, sizeRatio, latency, usdPerThousandRequests, device"),
    ("lean", searched(latency="0ms"), "spec.lean.search.budget.latency", "write a time above 0, such as 20ms"),
    ("lean", searched(latency="20m"), "spec.lean.search.budget.latency", 'such as "20ms" or "1.5s"'),
    ("lean", searched(usdPerThousandRequests="0"), "spec.lean.search.budget.usdPerThousandRequests", "write dollars above 0"),
    ("lean", searched(usdPerThousandRequests="0.01"), "spec.pricing", "price per hour; write spec.pricing.lean.usdPerHour"),
    ("lean", searched(device={"memory": "100Mi"}), "spec.lean.search.budget.device.memory", "ONNXRuntime alone takes about 135.0 MB; write more"),
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


TOKENS = {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "2"}


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"pricing": {"large": TOKENS, "lean": TOKENS}}, "spec.lean.search.budget.usdPerThousandRequests", "costs the same; write spec.pricing.lean.usdPerHour, or a gate on Saving"),
        ({"pricing": {"large": {"usdPerHour": "1"}, "lean": {"usdPerHour": "0"}}}, "spec.lean.search.budget.usdPerThousandRequests", "all cost nothing"),
        ({"cpu": "500m"}, "spec.serving.lean.resources.cpu", "found 500m, and spec.lean.search.budget.latency is measured with whole cores; write 1 or more"),
    ],
)  # fmt: skip
def test_a_price_and_cores_that_no_speed_can_be_priced_by(changes: Any, field: str, words: str) -> None:
    dollars = {} if "cpu" in changes else {"usdPerThousandRequests": "0.01"}
    document = changed("lean", searched(latency="20ms", **dollars))
    document["spec"]["pricing"] = changes.get("pricing")
    document["spec"]["serving"]["lean"]["resources"] = {"cpu": changes.get("cpu", "1")}
    with pytest.raises(ManifestError) as caught:
        load(
            {**document, "spec": {key: value for key, value in document["spec"].items() if value is not None}}
        )
    assert words in next(str(issue) for issue in caught.value.issues if issue.field == field)


def test_a_budget_of_time_money_and_memory_is_taken() -> None:
    budget = {"latency": "2.5ms", "usdPerThousandRequests": "0.001", "device": {"memory": "1Gi"}}
    document = changed("lean", searched(**budget))
    document["spec"]["pricing"] = {"large": {"usdPerHour": "0.1"}, "lean": {"usdPerHour": "0.1"}}
    for place in ("Machine", "Cluster"):
        lean = load(document, place).spec.lean  # type: ignore[arg-type]
        assert lean is not None and lean.search is not None and lean.search.budget.latency == "2.5ms"


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
