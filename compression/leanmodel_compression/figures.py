"""Cheap checks after a step: does the artifact load, with the shapes it should have, and what does it know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanmodel_api.errors import Issue

from . import devices, hf
from .batches import Row, by_length
from .shapes import ModelShape, from_config
from .steps import training
from .steps.protocol import StepError

# Validation rows are taken until they hold so many tokens, or so many on which the loss is: seconds, not minutes. The
# rows are the same after each step, so what a step changes is seen more exactly than the loss itself.
MAX_TOKENS = 6144
MAX_SCORED = 1024


def reload_check(folder: Path, expected: ModelShape, field: str) -> Any:
    """Load the artifact as its runtime would and return the model (float32).

    Raises:
        StepError: it does not load, lacks weights, or has another shape than the plan says.
    """
    try:
        shape = from_config(hf.read_json(folder / hf.CONFIG))
        missing = missing_weights(folder, shape)
        model = hf.load_model(folder)
        hf.load_tokenizer(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if devices.full(error):
            raise
        raise StepError(Issue(field, f"what the step made does not load ({error})", "report this")) from error
    if missing:
        raise StepError(
            Issue(field, f"what the step made lacks weights ({', '.join(missing[:3])} …)", "report this")
        )
    for size in ("layers", "hidden", "vocabulary", "intermediate", "heads", "kv_heads", "head_dim"):
        if getattr(shape, size) != getattr(expected, size):
            found = f"what the step made has {size} {getattr(shape, size)}, not {getattr(expected, size)}"
            raise StepError(Issue(field, found, "report this"))
    return model


def missing_weights(folder: Path, shape: ModelShape) -> list[str]:
    """Return the linear layers whose weights are not stored in any form."""
    from safetensors import safe_open

    stored: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as file:
            stored |= set(file.keys())
    wanted = [linear.name for linear in shape.linears() if not (shape.tied and linear.name == "lm_head")]
    return [name for name in wanted if not {f"{name}.weight", f"{name}.weight_packed"} & stored]


def validation(model: Any, rows: Sequence[Row], pad: int) -> dict[str, float]:
    """Return loss per answer token, its perplexity, and the share of answers that greedy decoding gives whole.

    Args:
        model: the model in evaluation mode.
        rows: the validation part; only its first rows are taken, up to a few thousand tokens.
        pad: any token; padding is never looked at.
    """
    import torch

    some = first_rows(rows)
    if not some:
        return {}
    loss = tokens = right = 0.0
    with torch.no_grad():
        for part in by_length(some):
            ids, where, columns, wanted = training.collate(some, part, pad, devices.of(model))
            logits = training.answer_logits(model, ids, where, columns)
            loss += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            tokens += len(wanted)
            hit = logits.argmax(-1) == wanted
            wrong = torch.zeros(len(part), device=where.device).index_add_(0, where, (~hit).float())
            right += float((wrong == 0).sum())
    mean = loss / tokens
    found = {"validationLoss": mean, "validationPerplexity": math.exp(min(mean, 50.0))}
    found["validationRows"] = float(len(some))
    # A text that is learned whole has no answer to get right.
    if all(row.first > 1 for row in some):
        found["validationAccuracy"] = right / len(some)
    return found


def first_rows(rows: Sequence[Row], tokens: int = MAX_TOKENS, scored: int = MAX_SCORED) -> list[Row]:
    """Return the first rows that hold at most so many tokens, and tokens on which the loss is; at least one row."""
    some: list[Row] = []
    for row in rows:
        taken = [*some, row]
        if some and (
            sum(len(one.ids) for one in taken) > tokens or sum(one.answers for one in taken) > scored
        ):
            break
        some.append(row)
    return some
