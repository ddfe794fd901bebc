"""Where quality went: before and after each step of a recipe, and layer by layer for what quantises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from leanmodel_api.figure import Estimate
from leanmodel_api.parts import Example
from leanmodel_api.plan import CompressResult, StepFigure
from leanmodel_api.search import LayerEffect, Sensitivity, StepEffect
from leanmodel_api.steps import Quantize, Step

from .. import encode, figures, hf
from ..shapes import from_config
from ..steps import sensitive
from ..steps.protocol import Progress
from ..steps.quantize import grid_group

ROWS = 32
"""Rows of the validation part that every layer is measured on."""
VERSION = 1


def of_steps(steps: Sequence[StepFigure], qualities: Sequence[Estimate]) -> Sensitivity:
    """Return the effect of each step; ``qualities`` begins with the large model's."""
    return Sensitivity(
        steps=[
            StepEffect(type=step.type, detail=step.detail, before=before, after=after)
            for step, before, after in zip(steps, qualities, qualities[1:], strict=False)
        ]
    )


def quantising(made: CompressResult, steps: Sequence[Step]) -> tuple[int, Quantize] | None:
    """Return which of a recipe's steps quantises the layers of a decoder, and its settings; None where none does."""
    for at, step in enumerate(steps):
        if isinstance(step, Quantize) and len(made.steps) == len(steps):
            return at, step
    return None


def of_layers(folder: Path, spec: Quantize, examples: Sequence[Example], progress: Progress) -> str:
    """Quantise each layer of a decoder alone, rounded to nearest, and return as JSON what it does to the loss.

    Args:
        folder: the model that goes into the step; it is not changed.
        spec: the step's scheme, targets and group size. Its algorithm would do better than rounding to nearest: which
            layers mind most is what this tells.
        examples: the validation part.
        progress: told after each layer.
    """
    shape = from_config(hf.read_json(folder / hf.CONFIG))
    model, tokenizer = hf.load_model(folder), hf.load_tokenizer(folder)
    rows = figures.first_rows(encode.encode_all(tokenizer, examples[:ROWS], spec.max_length))
    group = grid_group(spec, shape)
    layers = [one.model_dump() for one in sensitive.rises(model, shape, spec, rows, group, progress)]
    return json.dumps({"layers": layers, "layerRows": len(rows), "scheme": spec.scheme}, sort_keys=True)


def joined(effects: Sensitivity, text: str) -> Sensitivity:
    """Return the effects of the steps with those of the layers, as :func:`of_layers` gave them."""
    found = json.loads(text)
    layers = [LayerEffect.model_validate(layer) for layer in found["layers"]]
    return effects.model_copy(
        update={"layers": layers, "layer_rows": found["layerRows"], "scheme": found["scheme"]}
    )
