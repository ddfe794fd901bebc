"""A data set's texts and labels as a classifier sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from leanmodel_api.parts import Example

from .. import encode
from ..batches import Labelled, Rows, rough_tokens


def label_order(stored: Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    """Return the labels in the order of a model's outputs: its head's own, else (without one) the manifest's."""
    return tuple(stored) if set(stored) == set(choices) else tuple(choices)


def encode_all(
    tokenizer: Any, examples: Iterable[Example], labels: Sequence[str], length: int | None = None
) -> tuple[Labelled, ...]:
    """Return the rows of the examples that have a text and a label.

    Args:
        tokenizer: of the model; its own special tokens stand around each text, as in the serving engine.
        labels: in the order of the model's outputs.
        length: tokens to which rows are cut. Default: as long as they are.
    """
    index = {label: number for number, label in enumerate(labels)}
    found = []
    for example in examples:
        if example.text is None or example.answer not in index:
            continue
        ids = tuple(tokenizer.encode(example.text, add_special_tokens=True))
        row = Labelled((*ids, index[example.answer]), len(ids), example.text)
        found.append(row if length is None else row.shortened(length))
    return tuple(found)


def texts(tokenizer: Any, examples: Iterable[Example]) -> tuple[Labelled, ...]:
    """Return the rows of all texts, each with 0 where a label would stand: an embedding has none."""
    return tuple(
        Labelled((*ids, 0), len(ids), example.text)
        for example in examples
        if example.text is not None
        for ids in (tuple(tokenizer.encode(example.text, add_special_tokens=True)),)
    )


def rough_texts(examples: Iterable[Example]) -> tuple[Labelled, ...]:
    """Return the rows of all texts at about their length."""
    return tuple(
        Labelled((*range(size), 0), size, example.text)
        for example in examples
        if example.text is not None
        for size in (2 + rough_tokens(example.text),)
    )


def rough_rows(train: Sequence[Example], validation: Sequence[Example], labels: Sequence[str]) -> Rows:
    """Return rows of about the right length, before there is a tokenizer: on the long side."""
    return Rows(_rough(train, labels), _rough(validation, labels))


def _rough(examples: Iterable[Example], labels: Sequence[str]) -> tuple[Labelled, ...]:
    index = {label: number for number, label in enumerate(labels)}
    return tuple(
        Labelled((*range(size), index[example.answer]), size, example.text)
        for example in examples
        if example.text is not None and example.answer in index
        for size in (2 + rough_tokens(example.text),)
    )


def digest(train: Iterable[Example], validation: Iterable[Example], labels: Sequence[str]) -> str:
    """Return the sha256 of what a step learns from; the order of the labels decides what an output means."""
    names = "\n".join(labels)
    return "sha256:" + hashlib.sha256(f"{encode.digest(train, validation)}\n{names}".encode()).hexdigest()
