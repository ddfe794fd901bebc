"""The steps of task text-classification, by the type that stands in the manifest."""

from __future__ import annotations

from ..protocol import Step
from .distill import EncoderDistillation
from .export import Exporting
from .fetch import EncoderFetching
from .finetune import EncoderFinetuning
from .linear import LinearTraining
from .neurons import EncoderNeurons
from .prune import EncoderPruning
from .scratch import EncoderBeginning
from .trim import EncoderTrimming

REGISTRY: dict[str, Step] = {
    step.name: step
    for step in (
        EncoderFetching(),
        EncoderFinetuning(),
        EncoderBeginning(),
        EncoderPruning(),
        EncoderDistillation(),
        EncoderTrimming(),
        Exporting(),
        LinearTraining(),
    )
}

EXPORT_AS_TEACHER: Step = Exporting(keeps_weights=True)
"""The large model's export: it is served as ONNX, and teaches as safetensors."""

METHODS: dict[tuple[str, str], Step] = {("Prune", "Neurons"): EncoderNeurons()}
"""Steps that share a type with another one and are chosen by their method."""
