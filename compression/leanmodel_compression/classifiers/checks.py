"""What is checked of a classifier before any work. Pure: facts in, issues out."""

from __future__ import annotations

from leanmodel_api.classification import EMBEDDING
from leanmodel_api.errors import Issue
from leanmodel_api.plan import CompressPlan
from leanmodel_api.steps import Distill, Step

from ..shapes import ModelShape
from .shapes import FAMILIES, LINEAR, EncoderShape

UNNAMED = "LABEL_"


def model_issues(shape: ModelShape, plan: CompressPlan, field: str) -> list[Issue]:
    """Return why the model that comes in cannot classify, or not these labels.

    Args:
        shape: of the model.
        plan: a plan with the task text-classification.
        field: the manifest's field that names the model.
    """
    if not isinstance(shape, EncoderShape):
        return [
            Issue(
                field,
                f"{shape.architecture} is no encoder of a family that classifies here",
                f"name safetensors of {', '.join(f'{name}…' for name in FAMILIES.values())}, or write task: text-generation",
            )
        ]
    found = []
    role = "large" if plan.role == "Large" else "lean"
    if shape.family == LINEAR:
        what = "a linear model is served as it is, and is the start of nothing"
        return [Issue(field, what, "name an encoder")]
    if shape.quantised:
        what = f"the model is already quantised ({shape.quantised})"
        found.append(Issue(field, what, "name the float model; Export quantises it"))
    if plan.max_model_length > shape.positions:
        what = f"{plan.max_model_length} tokens, and the model was made for {shape.positions}"
        found.append(Issue(f"spec.serving.{role}.maxModelLength", what, f"write at most {shape.positions}"))
    if plan.task == EMBEDDING:
        found += _pooling_issues(shape, plan, field)
    elif plan.source is not None and plan.finetune is None and not any(map(makes_head, plan.steps)):
        found += _head_issues(shape, plan, field, role)
    return found


def makes_head(step: Step) -> bool:
    """Say whether a step gives an encoder the data set's labels: one that teaches them."""
    return isinstance(step, Distill)


def _pooling_issues(shape: EncoderShape, plan: CompressPlan, field: str) -> list[Issue]:
    """Return why a model that comes in makes no vectors of texts."""
    advice = "name a sentence encoder as sentence-transformers stores it, such as hf://sentence-transformers/all-MiniLM-L6-v2"
    if plan.source is None:
        return []
    if shape.labels:
        return [
            Issue(field, f"{shape.architecture} has a classification head", "write task: text-classification")
        ]
    if shape.problem:
        return [Issue(field, shape.problem, advice)]
    if not shape.pooling:
        return [
            Issue(field, "there is no modules.json beside its weights, so its pooling is not known", advice)
        ]
    return []


def _head_issues(shape: EncoderShape, plan: CompressPlan, field: str, role: str) -> list[Issue]:
    """Return what is wrong with the head of a model that is served as it comes."""
    finetune = (
        "write spec.large.finetune, which makes one"
        if role == "large"
        else "add lean.steps with a Distill, which makes one, or make it from the large model"
    )
    if not shape.labels:
        return [Issue(field, f"{shape.architecture} has no classification head", finetune)]
    if all(label.startswith(UNNAMED) for label in shape.labels):
        advice = "name them in its config.json (id2label, label2id) as in choices"
        return [Issue(field, f"its labels have no names ({', '.join(shape.labels)})", advice)]
    for index, data in enumerate(plan.data_sets):
        if data.choices and set(data.choices) != set(shape.labels):
            what = f"found {', '.join(data.choices)}, and the model's labels are {', '.join(shape.labels)}"
            return [Issue(f"spec.dataSets[{index}].choices", what, f"write the model's, or {finetune}")]
    return []
