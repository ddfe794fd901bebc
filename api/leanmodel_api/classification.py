"""What a text classifier's manifest must say: a text, a closed list of labels, an engine that serves encoders. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .base import number
from .errors import Issue
from .resource import Spec
from .steps import Distill, Export, Linear, Prune

Task = Literal["text-classification", "text-embedding"]
"""As plans and the router's settings carry it; nothing there stands for text generation."""

TASK: Task = "text-classification"
EMBEDDING: Task = "text-embedding"
ENCODER_TASKS: tuple[Task, ...] = (TASK, EMBEDDING)
METRICS = ("BalancedAccuracy", "ChoiceAccuracy", "F1", "Agreement")
STEPS = ("Scratch", "Prune", "Distill", "Trim", "Export", "Linear")
PRUNINGS = ("Depth", "Neurons")
SELECTIONS = ("Alternate", "First")
ENGINE = "ONNXRuntime"


def task_of(spec: Spec) -> Task | None:
    """Return the task as plans carry it: nothing for text generation, so that its plans keep their keys."""
    return next((task for task in ENCODER_TASKS if spec.task == task), None)


def classification_issues(spec: Spec) -> Iterable[Issue]:
    """Yield what does not fit the task, with what does: both ways, for classifiers and for generators."""
    if spec.task == TASK:
        yield from _data(spec)
        yield from _proof(spec)
        yield from _routing(spec)
        yield from _steps(spec)
        yield from _finetune(spec)
        yield from engine_issues(spec)
    elif spec.task != EMBEDDING:
        yield from _only_classifiers(spec)


def _data(spec: Spec) -> Iterable[Issue]:
    for index, data in enumerate(spec.data_sets):
        field = f"spec.dataSets[{index}]"
        if data.prompt.user is not None:
            yield Issue(
                f"{field}.prompt.user",
                "a classifier reads one text, not a chat",
                f"write prompt.text: {data.prompt.user!r}",
            )
        if not data.choices:
            yield Issue(f"{field}.choices", "a classifier has a closed list of labels", "write all of them")


def _proof(spec: Spec) -> Iterable[Issue]:
    metric = spec.evaluation.metric
    if metric is not None and metric not in METRICS:
        yield Issue(
            "spec.evaluation.metric",
            f"found {metric} with task {TASK}",
            f"write one of {', '.join(METRICS)}",
        )
    for index, gate in enumerate(spec.evaluation.gates):
        if gate.metric == "Perplexity":
            field = f"spec.evaluation.gates[{index}].metric"
            yield Issue(field, f"found Perplexity with task {TASK}", "write LeanQuality, or remove the gate")


def _routing(spec: Spec) -> Iterable[Issue]:
    if spec.routing.hold_back is not None:
        found = f"found {spec.routing.hold_back} with task {TASK}: its answer is one label"
        yield Issue("spec.routing.holdBack", found, "remove it")


def _steps(spec: Spec) -> Iterable[Issue]:
    for index, step in enumerate((spec.lean and spec.lean.steps) or []):
        field = f"spec.lean.steps[{index}]"
        if step.type == "Quantize":
            yield Issue(
                f"{field}.type",
                f"found Quantize, whose files are vLLM's, with task {TASK}",
                "write {type: Export, precision: Int8}, which quantises for ONNX Runtime",
            )
        elif step.type not in STEPS:
            yield Issue(
                f"{field}.type",
                f"found {step.type}: not supported yet with task {TASK}",
                f"write one of {', '.join(STEPS)}",
            )
        if isinstance(step, Prune):
            yield from pruning_issues(step, field, TASK)
        if isinstance(step, Export) and step.format != "ONNX":
            found = f"found {step.format} with task {TASK}: llama.cpp has no ALBERT, MobileBERT or SqueezeBERT, and no labels of ours"
            yield Issue(f"{field}.format", found, "write ONNX, which runs on small devices too")
        elif isinstance(step, Export) and step.precision == "Float16":
            found = "found Float16 with ONNX: not supported yet"
            yield Issue(f"{field}.precision", found, "write Float32 or Int8")
        if isinstance(step, Distill) and step.quantization_aware is not None:
            found = f"found {step.quantization_aware}: not supported yet with task {TASK}"
            yield Issue(f"{field}.quantizationAware", found, "remove it; Export quantises to Int8")
        if isinstance(step, Distill):
            later = [other for other in (spec.lean and spec.lean.steps) or [] if isinstance(other, Distill)]
            yield from _objectives(step, field, step is later[-1])


def pruning_issues(step: Prune, field: str, task: Task) -> Iterable[Issue]:
    """Yield methods and selections of pruning that encoders do not have."""
    if step.method not in PRUNINGS:
        found = f"found {step.method}: not supported yet with task {task}"
        yield Issue(f"{field}.method", found, f"write {' or '.join(PRUNINGS)}")
    elif step.method == "Depth" and step.selection not in SELECTIONS:
        found = f"found {step.selection}: not supported yet with task {task}"
        yield Issue(f"{field}.selection", found, f"write one of {', '.join(SELECTIONS)}")


def _objectives(step: Distill, field: str, last: bool) -> Iterable[Issue]:
    """Yield what an encoder's distillation cannot mean.

    Args:
        step: the step.
        field: its place.
        last: whether no other Distill follows, which could teach the labels.
    """
    if last and "Logits" not in step.objectives and number(step.label_weight) == 0:
        found = f"found {', '.join(step.objectives)} with labelWeight 0, which teaches the labels to nobody"
        yield Issue(f"{field}.objectives", found, "add Logits, here or in a Distill after it")
    yield from objective_issues(step, field)


def objective_issues(step: Distill, field: str) -> Iterable[Issue]:
    """Yield weights and maps of what is not matched, and what is named twice."""
    weighted = (("Hidden", "hiddenWeight", step.hidden_weight), ("Attention", "attentionWeight", step.attention_weight),
                ("Attention", "relationHeads", step.relation_heads))  # fmt: skip
    for objective, name, value in weighted:
        if value is not None and objective not in step.objectives:
            found = f"found {value} without {objective} in objectives"
            yield Issue(
                f"{field}.{name}",
                found,
                f"remove it, or write objectives: [{step.objectives[0]}, {objective}]",
            )
    if step.layer_map and not {"Hidden", "Attention"} & set(step.objectives):
        found = "found a map without Hidden or Attention in objectives"
        yield Issue(f"{field}.layerMap", found, "remove it, or add Hidden to objectives")
    if len(set(step.objectives)) < len(step.objectives):
        yield Issue(f"{field}.objectives", f"found {', '.join(step.objectives)}", "name each once")


def _finetune(spec: Spec) -> Iterable[Issue]:
    finetune = spec.large.finetune
    if finetune is None:
        return
    if finetune.method != "Full":
        found = f"found {finetune.method}: not supported yet with task {TASK}"
        yield Issue("spec.large.finetune.method", found, "write Full")
    if finetune.train_layers is not None:
        found = f"found {finetune.train_layers}: not supported yet with task {TASK}"
        yield Issue("spec.large.finetune.trainLayers", found, "remove it: all weights are trained")


def engine_issues(spec: Spec) -> Iterable[Issue]:
    """Yield engines and precisions that serve no encoder."""
    for name in ("large", "lean"):
        engine = getattr(spec.serving, name).engine
        if engine != ENGINE and (name == "large" or spec.lean is not None):
            yield Issue(
                f"spec.serving.{name}.engine",
                f"found {engine}, which serves no {spec.task} here (and loads no DistilBERT, ALBERT, MobileBERT or SqueezeBERT)",
                f"write {ENGINE}",
            )
        dtype = getattr(spec.serving, name).dtype
        if engine == ENGINE and dtype not in ("Auto", "Float32"):
            advice = "write Float32 (8 bits come of a step: {type: Export, precision: Int8})"
            yield Issue(f"spec.serving.{name}.dtype", f"found {dtype} with engine {ENGINE}", advice)


def _only_classifiers(spec: Spec) -> Iterable[Issue]:
    """Yield what only an encoder can have."""
    for name in ("large", "lean"):
        engine = getattr(spec.serving, name).engine
        if engine == ENGINE:
            yield Issue(f"spec.serving.{name}.engine", f"found {engine} with task {spec.task}", "write vLLM")
    for index, step in enumerate((spec.lean and spec.lean.steps) or []):
        field = f"spec.lean.steps[{index}]"
        if isinstance(step, Export) and step.format != "GGUF":
            found = f"found {step.format} with task {spec.task}"
            advice = "write GGUF (for llama.cpp), or remove the step: vLLM serves the weights as they are"
            yield Issue(f"{field}.format", found, advice)
        if isinstance(step, Linear):
            found = f"found Linear, which is for task {TASK}"
            yield Issue(f"{field}.type", found, "remove it")
        if isinstance(step, Prune) and step.selection == "Alternate":
            found = f"found Alternate: not supported yet with task {spec.task}"
            yield Issue(f"{field}.selection", found, "write Influence or First")
