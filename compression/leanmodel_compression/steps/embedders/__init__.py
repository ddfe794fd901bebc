"""The steps of task text-embedding, by the type that stands in the manifest."""

from __future__ import annotations

from ..encoders.prune import EncoderPruning
from ..protocol import Step
from .distill import EmbeddingDistillation
from .export import EmbeddingExporting
from .fetch import EmbedderFetching

REGISTRY: dict[str, Step] = {
    step.name: step
    for step in (EmbedderFetching(), EncoderPruning(), EmbeddingDistillation(), EmbeddingExporting())
}

EXPORT_AS_TEACHER: Step = EmbeddingExporting(keeps_weights=True)
"""The large model's export: it is served as ONNX, and teaches as safetensors."""
