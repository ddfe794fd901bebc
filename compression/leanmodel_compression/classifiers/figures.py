"""Cheap checks of a classifier after a step: it loads where it will run, and what it knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanmodel_api.errors import Issue
from leanmodel_api.parts import Example

from .. import devices, figures, hf
from ..batches import by_length
from ..shapes import ModelShape
from ..steps.protocol import StepError
from . import linear, models, onnx_file, rows
from .shapes import LINEAR, EncoderShape, encoder_shape


def look(
    folder: Path, expected: ModelShape, field: str, examples: Sequence[Example] | None, length: int
) -> dict[str, float]:
    """Load what was made, in ONNX Runtime where it is exported, and measure it on the validation part.

    Args:
        folder: what the step made.
        expected: the shape that it should have.
        field: the step's place in the manifest.
        examples: the validation part; None where the plan has no data.
        length: tokens per text at most.

    Raises:
        StepError: it does not load, or has another shape than the plan says.
    """
    try:
        shape = encoder_shape(hf.read_json(folder / hf.CONFIG))
        exported = (folder / onnx_file.NAME).exists()
        session = onnx_file.session(folder / onnx_file.NAME) if exported else None
        model = None if exported else models.load(folder) if shape.labels else models.load_base(folder)
        tokenizer = linear.load_words(folder) if shape.family == LINEAR else hf.load_tokenizer(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if devices.full(error):
            raise
        raise StepError(Issue(field, f"what the step made does not load ({error})", "report this")) from error
    assert isinstance(expected, EncoderShape)
    sizes, wanted = (
        (one.layers, one.hidden, one.intermediate, one.vocabulary, one.labels) for one in (shape, expected)
    )
    if sizes != wanted:
        found = f"what the step made has {shape.layers} layers of {shape.hidden} and {shape.intermediate}, labels {shape.labels}"
        raise StepError(Issue(field, found, "report this"))
    if not shape.labels or examples is None:
        return {}

    def logits(ids: Any, mask: Any) -> Any:
        if session is not None:
            return onnx_file.logits(session, ids, mask)
        assert model is not None
        return devices.asked(model, {"input_ids": ids, "attention_mask": mask}).logits

    return _measured(logits, rows.encode_all(tokenizer, examples, shape.labels, length))


def _measured(logits: Any, seen: Sequence[Any]) -> dict[str, float]:
    """Return loss and share of right labels on the first rows, up to a few thousand tokens."""
    import torch

    some = figures.first_rows(seen)
    if not some:
        return {}
    loss = right = 0.0
    with torch.no_grad():
        for part in by_length(some):
            ids, mask, labels = models.collate(some, part)
            found = logits(ids, mask)
            loss += float(torch.nn.functional.cross_entropy(found, labels, reduction="sum"))
            right += float((found.argmax(-1) == labels).sum())
    count = float(len(some))
    return {"validationLoss": loss / count, "validationRows": count, "validationAccuracy": right / count}
