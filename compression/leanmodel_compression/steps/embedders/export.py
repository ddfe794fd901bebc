"""Export: the sentence encoder as ONNX, pooling and scaling inside the file, held against torch in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanmodel_api.classification import EMBEDDING
from leanmodel_api.errors import Issue

from ... import devices
from ...classifiers import models, onnx_file
from ...classifiers.pooling import Pooling
from ..encoders.common import encoder
from ..encoders.export import Exporting, probes
from ..protocol import Task

# 1 - cosine with torch's vector that is let pass: the largest in float32, the mean in 8 bits.
FLOAT_TOLERANCE = 1e-4
INT8_TOLERANCE = 0.05


class EmbeddingExporting(Exporting):
    """Writes the file that ONNX Runtime serves."""

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """As a classifier's, and the task."""
        return {**super().settings(spec), "task": EMBEDDING}

    def load(self, folder: Path) -> Any:
        """Return the encoder without a head."""
        return models.load_base(folder, devices.CPU)

    def write(self, model: Any, path: Path, task: Task) -> int:
        """Export the vectors."""
        return onnx_file.export(model, path, _pooling(task))

    def held(self, model: Any, session: Any, task: Task, int8: bool) -> tuple[dict[str, float], Issue | None]:
        """Compare vectors of seeded random texts."""
        largest, total, count = 0.0, 0.0, 0
        for wanted, found in probes(model, session, task.shape, lambda out, mask: _pooling(task).of(out.last_hidden_state, mask)):  # fmt: skip
            import torch

            apart = 1 - torch.nn.functional.cosine_similarity(wanted, found, dim=-1)
            largest, total, count = (
                max(largest, float(apart.max())),
                total + float(apart.sum()),
                count + len(apart),
            )
        figures = {"largestCosineDistance": largest, "meanCosineDistance": total / count}
        bad = total / count > INT8_TOLERANCE if int8 else largest > FLOAT_TOLERANCE
        words = f"ONNX Runtime's vectors lie {total / count:.2g} (mean) and {largest:.2g} (most) from torch's, as 1 - cosine"
        field, advice = f"{task.field}.precision", "write Float32" if int8 else "report this"
        return figures, Issue(field, words, advice) if bad else None


def _pooling(task: Task) -> Pooling:
    shape = encoder(task.shape)
    return Pooling(shape.pooling, shape.normalize)
