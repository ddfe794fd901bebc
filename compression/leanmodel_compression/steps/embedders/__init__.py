"""The steps of task text-embedding, by the type that stands in the manifest."""

from __future__ import annotations

from leanmodel_api.classification import EMBEDDING

from ..encoders.neurons import EncoderNeurons
from ..encoders.prune import EncoderPruning
from ..encoders.scratch import EncoderBeginning
from ..encoders.trim import EncoderTrimming
from ..protocol import Step
from .distill import EmbeddingDistillation
from .export import EmbeddingExporting
from .fetch import EmbedderFetching

REGISTRY: dict[str, Step] = {
    step.name: step
    for step in (
        EmbedderFetching(),
        EncoderBeginning(),
        EncoderPruning(),
        EmbeddingDistillation(),
        EncoderTrimming(EMBEDDING),
        EmbeddingExporting(),
    )
}

EXPORT_AS_TEACHER: Step = EmbeddingExporting(keeps_weights=True)
"""The large model's export: it is served as ONNX, and teaches as safetensors."""

METHODS: dict[tuple[str, str], Step] = {("Prune", "Neurons"): EncoderNeurons(EMBEDDING)}
"""Steps that share a type with another one and are chosen by their method."""
