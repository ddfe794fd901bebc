"""The steps of task text-classification, by the type that stands in the manifest."""

from __future__ import annotations

from ..protocol import Step
from .distill import EncoderDistillation
from .export import Exporting
from .fetch import EncoderFetching
from .finetune import EncoderFinetuning
from .linear import LinearTraining
from .prune import EncoderPruning

REGISTRY: dict[str, Step] = {
    step.name: step
    for step in (
        EncoderFetching(),
        EncoderFinetuning(),
        EncoderPruning(),
        EncoderDistillation(),
        Exporting(),
        LinearTraining(),
    )
}

EXPORT_AS_TEACHER: Step = Exporting(keeps_weights=True)
"""The large model's export: it is served as ONNX, and teaches as safetensors."""
