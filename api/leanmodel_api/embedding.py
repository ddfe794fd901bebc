"""What a manifest of sentence embeddings must say: texts, a student that lives in the teacher's space, no guessing. Pure.

Vectors of two models can be compared only where one has learned to give the other's. So a lean model is made from the
large one's weights and taught its vectors; a model of another space is refused, whatever its size. And a vector carries
no sign of how sure its model is: there is nothing to judge an answer by, so no request is escalated.
"""

from __future__ import annotations

from collections.abc import Iterable

from .base import number
from .classification import EMBEDDING, ENGINE, engine_issues, objective_issues, pruning_issues
from .errors import Issue
from .resource import Spec
from .steps import Distill, Export, Prune, Scratch

METRICS = ("NeighborAgreement", "EmbeddingCosine")
STEPS = ("Scratch", "Prune", "Distill", "Trim", "Export")
OBJECTIVES = ("Embeddings", "Hidden", "Attention")


def embedding_issues(spec: Spec) -> Iterable[Issue]:
    """Yield what does not fit embeddings, with what does; and what only embeddings have, elsewhere."""
    if spec.task != EMBEDDING:
        yield from _only_embeddings(spec)
        return
    yield from _data(spec)
    yield from _proof(spec)
    yield from _models(spec)
    yield from _steps(spec)
    yield from engine_issues(spec)


def _data(spec: Spec) -> Iterable[Issue]:
    for index, data in enumerate(spec.data_sets):
        field = f"spec.dataSets[{index}]"
        if data.prompt.user is not None:
            found = "an embedding is made of one text, not of a chat"
            yield Issue(f"{field}.prompt.user", found, f"write prompt.text: {data.prompt.user!r}")
        if data.answer is not None:
            found = "an embedding has no answer: its measure is the large model's vector"
            yield Issue(f"{field}.answer", found, "remove it, and choices and positive with it")


def _proof(spec: Spec) -> Iterable[Issue]:
    metric = spec.evaluation.metric
    if metric is not None and metric not in METRICS:
        found = f"found {metric} with task {EMBEDDING}"
        yield Issue("spec.evaluation.metric", found, f"write one of {', '.join(METRICS)}")
    for index, gate in enumerate(spec.evaluation.gates):
        if gate.metric in ("Perplexity", "LeanOverBaseline"):
            field = f"spec.evaluation.gates[{index}].metric"
            yield Issue(field, f"found {gate.metric} with task {EMBEDDING}", "write LeanQuality")
    routing = spec.routing
    if routing.hold_back is not None:
        found = f"found {routing.hold_back} with task {EMBEDDING}: a vector comes whole"
        yield Issue("spec.routing.holdBack", found, "remove it")
    if spec.lean is not None and routing.strategy != "Fixed":
        yield Issue(
            "spec.routing.strategy",
            f"found {routing.strategy}, which judges an answer or a prompt, and a vector carries no confidence",
            "write strategy: Fixed and fixed: Lean; gates decide whether the lean model gets the traffic",
        )


def _models(spec: Spec) -> Iterable[Issue]:
    if spec.large.finetune is not None:
        found = f"found it with task {EMBEDDING}: not supported yet"
        yield Issue(
            "spec.large.finetune", found, "remove it, or name a sentence encoder that is tuned already"
        )
    if spec.lean is not None and spec.lean.source is not None:
        yield Issue(
            "spec.lean.source",
            "a model of its own has a space of its own: vectors of the two could not be compared",
            "make it with lean.steps from the large one, or serve it as large of another LeanModel",
        )


def _steps(spec: Spec) -> Iterable[Issue]:
    steps = (spec.lean and spec.lean.steps) or []
    for index, step in enumerate(steps):
        field = f"spec.lean.steps[{index}]"
        if step.type == "Quantize":
            found = f"found Quantize, whose files are vLLM's, with task {EMBEDDING}"
            yield Issue(
                f"{field}.type",
                found,
                "write {type: Export, precision: Int8}, which quantises for ONNX Runtime",
            )
        elif step.type not in STEPS:
            found = f"found {step.type}: not supported yet with task {EMBEDDING}"
            yield Issue(f"{field}.type", found, f"write one of {', '.join(STEPS)}")
        if isinstance(step, Export) and str(step.format) != "ONNX":
            found = f"found {step.format}, which no runtime of ours reads for an encoder (llama.cpp knows neither ALBERT nor MobileBERT)"
            yield Issue(f"{field}.format", found, "write ONNX")
        if isinstance(step, Prune):
            yield from pruning_issues(step, field, EMBEDDING)
        if isinstance(step, Distill):
            yield from _distill(step, field)
    taught = any(isinstance(step, Distill) and "Embeddings" in step.objectives for step in steps)
    cut = [index for index, step in enumerate(steps) if isinstance(step, Prune | Scratch)]
    if cut and not taught:
        found = (
            f"found {steps[cut[0]].type} without a Distill after it that teaches the large model's vectors"
        )
        yield Issue(f"spec.lean.steps[{cut[0]}].type", found, "add {type: Distill, objectives: [Embeddings]}")


def _distill(step: Distill, field: str) -> Iterable[Issue]:
    wrong = [name for name in step.objectives if name not in OBJECTIVES]
    if wrong:
        found = f"found {', '.join(wrong)}, and an encoder without labels has none"
        yield Issue(f"{field}.objectives", found, "write [Embeddings], with Hidden or Attention beside it")
    yield from objective_issues(step, field)
    for name, written in (("labelWeight", "label_weight"), ("temperature", "temperature")):
        value = getattr(step, written)
        if number(value) != number(str(Distill.model_fields[written].default)):
            yield Issue(
                f"{field}.{name}", f"found {value} with task {EMBEDDING}", "remove it: there are no labels"
            )


def _only_embeddings(spec: Spec) -> Iterable[Issue]:
    for index, step in enumerate((spec.lean and spec.lean.steps) or []):
        if isinstance(step, Distill) and "Embeddings" in step.objectives:
            found = f"found Embeddings, which is for task {EMBEDDING}"
            yield Issue(f"spec.lean.steps[{index}].objectives", found, "write [Logits]")
    if spec.evaluation.metric in METRICS:
        found = f"found {spec.evaluation.metric}, which is for task {EMBEDDING}"
        yield Issue("spec.evaluation.metric", found, "write another, or remove it")


__all__ = ["EMBEDDING", "ENGINE", "METRICS", "embedding_issues"]
