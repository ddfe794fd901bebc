"""What a manifest of sentence embeddings may say, and what is refused with the way out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanmodel_api.errors import ManifestError
from leanmodel_api.manifest import load

GOOD: dict[str, Any] = {
    "apiVersion": "leanmodel.io/v1alpha1",
    "kind": "LeanModel",
    "metadata": {"name": "notes"},
    "spec": {
        "task": "text-embedding",
        "dataSets": [{"name": "sms", "source": {"uri": "file:data/sms.tsv"}, "format": "TSV", "prompt": {"text": "{msg}"}}],
        "large": {"source": {"uri": "file:encoder"}},
        "lean": {
            "steps": [
                {"type": "Prune", "keepLayers": 3, "selection": "Alternate"},
                {"type": "Distill", "objectives": ["Embeddings", "Hidden", "Attention"], "attentionWeight": "0.5"},
                {"type": "Export", "precision": "Int8"},
            ]
        },
        "evaluation": {"gates": [{"metric": "LeanQuality", "min": "0.6"}]},
        "routing": {"strategy": "Fixed", "fixed": "Lean"},
        "serving": {"large": {"engine": "ONNXRuntime"}, "lean": {"engine": "ONNXRuntime"}},
    },
}  # fmt: skip
STEPS = "spec.lean.steps"
CASES: list[tuple[str, Any, str, str]] = [
    # path, value, field of the message, its words
    ("dataSets.0.prompt", {"user": "{msg}"}, "spec.dataSets[0].prompt.user", "write prompt.text: '{msg}'"),
    ("dataSets.0.answer", "{label}", "spec.dataSets[0].answer", "an embedding has no answer"),
    ("evaluation.metric", "TokenF1", "spec.evaluation.metric", "write one of NeighborAgreement, EmbeddingCosine"),
    ("evaluation.gates.0", {"metric": "LeanOverBaseline", "min": "0"}, "spec.evaluation.gates[0].metric", "write LeanQuality"),
    ("routing", {"strategy": "Cascade"}, "spec.routing.strategy", "a vector carries no confidence; write strategy: Fixed"),
    ("routing", None, "spec.routing.strategy", "found Cascade"),
    ("large.finetune", {"epochs": "1"}, "spec.large.finetune", "not supported yet"),
    ("lean", {"source": {"uri": "file:small"}}, "spec.lean.source", "has a space of its own"),
    ("lean.steps.1", {"type": "Distill"}, f"{STEPS}[1].objectives", "found Logits, and an encoder without labels has none"),
    ("lean.steps.1", {"type": "Distill", "objectives": ["Embeddings"], "labelWeight": "0.2"}, f"{STEPS}[1].labelWeight", "there are no labels"),
    ("lean.steps.1", {"type": "Distill", "objectives": ["Embeddings"], "temperature": "2"}, f"{STEPS}[1].temperature", "there are no labels"),
    ("lean.steps.1", {"type": "Distill", "objectives": ["Embeddings"], "hiddenWeight": "2"}, f"{STEPS}[1].hiddenWeight", "without Hidden in objectives"),
    ("lean.steps.2", {"type": "Export", "format": "GGUF"}, f"{STEPS}[2].format", "ONNX"),
    ("lean.steps.1", {"type": "Distill", "objectives": ["Hidden"]}, f"{STEPS}[0].type", "add {type: Distill, objectives: [Embeddings]}"),
    ("lean.steps.0", {"type": "Prune", "keepLayers": 3}, f"{STEPS}[0].selection", "write one of Alternate, First"),
    ("lean.steps.0", {"type": "Prune", "method": "Heads", "ratio": "0.5"}, f"{STEPS}[0].method", "write Depth or Neurons"),
    ("lean.steps.2", {"type": "Quantize"}, f"{STEPS}[2].type", "precision: Int8"),
    ("lean.steps.2", {"type": "Linear"}, f"{STEPS}[2].type", "not supported yet with task text-embedding"),
    ("serving.lean.engine", "vLLM", "spec.serving.lean.engine", "serves no text-embedding here"),
    ("serving.large", {"engine": "ONNXRuntime", "dtype": "BFloat16"}, "spec.serving.large.dtype", "write Float32"),
    ("task", "text-classification", f"{STEPS}[1].objectives", "Embeddings, which is for task text-embedding"),
]  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    *names, last = path.split(".")
    place: Any = document["spec"]
    for name in names:
        place = place[int(name)] if name.isdigit() else place[name]
    if value is None:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return document


def test_a_good_manifest_is_taken_on_one_machine_and_in_a_cluster() -> None:
    assert load(GOOD).spec.task == load(GOOD, "Cluster").spec.task == "text-embedding"


def test_a_large_model_alone_and_an_export_alone_are_fine() -> None:
    alone = changed("lean", None)
    del alone["spec"]["evaluation"], alone["spec"]["routing"]
    assert load(alone).spec.lean is None
    # Eight bits of the same model live in the same space.
    assert load(changed("lean", {"steps": [{"type": "Export", "precision": "Int8"}]})).spec.lean is not None


@pytest.mark.parametrize(("path", "value", "field", "words"), CASES)
def test_what_does_not_fit_names_field_and_way_out(path: str, value: Any, field: str, words: str) -> None:
    with pytest.raises(ManifestError) as error:
        load(changed(path, value))
    assert any(line.startswith(f"{field}: ") and words in line for line in str(error.value).splitlines()), str(error.value)  # fmt: skip


def test_a_generator_has_no_metric_of_vectors() -> None:
    document = changed("evaluation.metric", "EmbeddingCosine")
    document["spec"].update(task="text-generation", lean=None)
    with pytest.raises(ManifestError, match="EmbeddingCosine, which is for task text-embedding"):
        load(document)


def test_the_example_is_a_good_one() -> None:
    path = Path(__file__).parents[3] / "examples" / "quickstart" / "embeddings.yaml"
    assert load(yaml.safe_load(path.read_text())).spec.task == "text-embedding"
