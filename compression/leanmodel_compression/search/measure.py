"""How good a model is on the validation part: each row right or wrong, and what that says with which certainty.

With choices a row is right or wrong, and quality is balanced accuracy: the mean over the answers of the share of their
rows that are right. Without, quality is the mean over the rows of the share of an answer's tokens that greedy decoding
would give. Both are found in one forward pass: an answer is given whole when each of its tokens is the likeliest after
those before it. It is a cheap stand-in for the proof, which asks the engine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leanmodel_api.figure import Estimate
from leanmodel_api.parts import Example

from .. import devices, encode, hf
from ..batches import by_length, cut
from ..classifiers import linear, models, onnx_file
from ..classifiers import rows as labelled
from ..classifiers.shapes import LINEAR, encoder_shape
from ..steps import training

Z = 1.959963984540054
"""Of a 95% interval."""
FILE = "rows.json"
VERSION = 1
"""Raise it when a change here changes what is measured: measurements are kept in the store."""


@dataclass(frozen=True)
class Judged:
    """A model's answers, row by row.

    Attributes:
        strata: what each row belongs to: its answer with choices, else one for all.
        right: of each row, between 0 and 1.
    """

    strata: tuple[str, ...]
    right: tuple[float, ...]

    def to_json(self) -> str:
        """Return it as JSON text, the same for the same answers."""
        return json.dumps({"strata": self.strata, "right": self.right}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Judged:
        """Read what :meth:`to_json` wrote."""
        found = json.loads(text)
        return cls(tuple(found["strata"]), tuple(found["right"]))


def quality(judged: Judged) -> Estimate:
    """Return the mean over the strata of what is right, with its 95% interval.

    Each stratum's interval is Wilson's (1927), their combination MOVER's (Zou and Donner, Statistics in Medicine 27,
    2008): it does not collapse where everything is right. A share of tokens varies less than right or wrong does, so
    there it errs on the wide side.
    """
    parts = [
        _wilson([right for other, right in zip(judged.strata, judged.right, strict=True) if other == name])
        for name in sorted(set(judged.strata))
    ]
    if not parts:
        return Estimate(value=0.0, low=0.0, high=1.0, n=0)
    value = sum(part.value for part in parts) / len(parts)
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / len(parts)
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / len(parts)
    return Estimate(
        value=value,
        low=max(0.0, value - below),
        high=min(1.0, value + above),
        n=sum(part.n for part in parts),
    )


def _wilson(right: Sequence[float]) -> Estimate:
    n, share = len(right), sum(right) / len(right)
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return Estimate(
        value=share, low=min(share, max(0.0, centre - half)), high=max(share, min(1.0, centre + half)), n=n
    )


def retained(lean: Estimate, large: Estimate) -> Estimate:
    """Return a quality as a share of the large model's, whose own figure is taken as it is: both saw the same rows."""
    if large.value <= 0:
        return Estimate(value=0.0, low=0.0, high=0.0, n=lean.n)
    return Estimate(
        value=lean.value / large.value, low=lean.low / large.value, high=lean.high / large.value, n=lean.n
    )


def generator(folder: Path, examples: Sequence[Example], choices: Sequence[str], length: int) -> Judged:
    """Ask a decoder.

    Args:
        folder: with its weights and its tokenizer.
        examples: those with an answer count.
        choices: the allowed answers; empty where any is.
        length: tokens per row at most.
    """
    import torch

    model, tokenizer = hf.load_model(folder), hf.load_tokenizer(folder)
    known = [
        (example, encode.encode(tokenizer, example)) for example in examples if example.answer is not None
    ]
    asked = [(str(example.answer), cut(row, length)) for example, row in known if row is not None]
    rows = [row for _, row in asked]
    right = [0.0] * len(rows)
    with torch.no_grad():
        for part in by_length(rows):
            pad, device = int(tokenizer.eos_token_id), devices.of(model)
            ids, where, columns, wanted = training.collate(rows, part, pad, device)
            hit = training.answer_logits(model, ids, where, columns).argmax(-1) == wanted
            hits = torch.zeros(len(part), device=device).index_add_(0, where, hit.float())
            for line, index in enumerate(part):
                share = float(hits[line]) / rows[index].answers
                right[index] = float(share == 1.0) if choices else share
    strata = [answer if choices else "" for answer, _ in asked]
    return Judged(tuple(strata), tuple(right))


def classifier(folder: Path, examples: Sequence[Example], length: int) -> Judged:
    """Ask a classifier, in ONNX Runtime where it is exported."""
    import torch

    shape = encoder_shape(hf.read_json(folder / hf.CONFIG))
    exported = (folder / onnx_file.NAME).exists()
    session = onnx_file.session(folder / onnx_file.NAME) if exported else None
    model = None if exported else models.load(folder)
    tokenizer = linear.load_words(folder) if shape.family == LINEAR else hf.load_tokenizer(folder)
    rows = labelled.encode_all(tokenizer, examples, shape.labels, length)
    right = [0.0] * len(rows)
    with torch.no_grad():
        for part in by_length(rows):
            ids, mask, labels = models.collate(rows, part)
            if session is not None:
                found = onnx_file.logits(session, ids, mask)
            else:
                assert model is not None
                found = devices.asked(model, {"input_ids": ids, "attention_mask": mask}).logits
            for line, index in enumerate(part):
                right[index] = float(found[line].argmax() == labels[line])
    return Judged(tuple(shape.labels[row.ids[-1]] for row in rows), tuple(right))
