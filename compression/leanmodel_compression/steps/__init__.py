"""Every step is a file here; the registry finds it by the type, and where it has several, the method."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from leanmodel_api import techniques
from leanmodel_api.classification import EMBEDDING, Task

from . import embedders, encoders
from .distill import Distillation
from .encoders import EXPORT_AS_TEACHER
from .encoders import REGISTRY as ENCODERS
from .expand import Expanding
from .export import Exporting
from .factorize import Factorizing
from .fetch import Fetching
from .finetune import Finetuning
from .heal import Healing
from .protocol import Step
from .prune import Pruning
from .quantize import Quantization
from .scratch import Beginning
from .share import Sharing
from .sparse import WeightPruning
from .structure import StructurePruning
from .trim import Trimming
from .width import WidthPruning


def added(module: ModuleType) -> Step:
    """Return the step of a technique that is not ours."""
    step: Step = module.step()
    return step


REGISTRY: dict[str, Step] = {
    step.name: step
    for step in (
        Fetching(),
        Finetuning(),
        Beginning(),
        Pruning(),
        Factorizing(),
        Sharing(),
        Distillation(),
        Healing(),
        Trimming(),
        Quantization(),
        Exporting(),
    )
}
REGISTRY |= {step.name: step for step in map(added, techniques.modules())}
EXPAND: Step = Expanding()
"""What stands after the last step that works on shared layers."""
METHODS: dict[tuple[str, str], Step] = {
    (step.name, method): step
    for step in (WeightPruning(), StructurePruning(), WidthPruning())
    for method in step.methods
}
"""Steps that share a type with another one and are chosen by their method."""


def registry(task: Task | None) -> dict[str, Step]:
    """Return the steps of a task, by type."""
    return REGISTRY if task is None else embedders.REGISTRY if task == EMBEDDING else ENCODERS


def methods(task: Task | None) -> dict[tuple[str, str], Step]:
    """Return the steps of a task that are chosen by their method, by type and method."""
    return METHODS if task is None else embedders.METHODS if task == EMBEDDING else encoders.METHODS


def export_as_teacher(task: Task) -> Step:
    """Return the export of a large model, whose weights stay beside the file."""
    return embedders.EXPORT_AS_TEACHER if task == EMBEDDING else EXPORT_AS_TEACHER


def step_of(spec: Any, task: Task | None = None) -> Step:
    """Return the step that does what a plan's object says."""
    return methods(task).get((spec.type, getattr(spec, "method", "")), registry(task)[spec.type])


__all__ = [
    "ENCODERS",
    "EXPAND",
    "EXPORT_AS_TEACHER",
    "METHODS",
    "REGISTRY",
    "Step",
    "export_as_teacher",
    "methods",
    "registry",
    "step_of",
]
