"""What the Job does otherwise for a generator and for a classifier: rows of a data set, and looking at what was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from leanmodel_api.classification import EMBEDDING, TASK, Task
from leanmodel_api.parts import Example
from leanmodel_store.datasets import Parts

from . import encode, figures, hf
from .batches import Rows
from .checks import rough_rows
from .classifiers import figures as classifier_figures
from .classifiers import rows as labelled
from .classifiers.shapes import encoder_shape
from .shapes import ModelShape


class Kind(Protocol):
    """A kind of model, by its task."""

    def digest(self, parts: Parts, labels: Sequence[str]) -> str:
        """Return the sha256 of what a step learns from."""

    def rough(self, parts: Parts, labels: Sequence[str]) -> Rows:
        """Return rows of about the right length, before there is a tokenizer."""

    def rows(self, folder: Path, parts: Parts, labels: Sequence[str]) -> Rows:
        """Return the rows that a model's own tokenizer makes."""

    def look(
        self, folder: Path, expected: ModelShape, field: str, examples: Sequence[Example] | None, length: int
    ) -> dict[str, float]:
        """Load what a step made, hold it against its shape, and measure it on the examples (None: on none)."""


class Generators:
    """Decoders that answer in words."""

    def digest(self, parts: Parts, labels: Sequence[str]) -> str:
        """Prompts and answers."""
        return encode.digest(parts.train, parts.validation)

    def rough(self, parts: Parts, labels: Sequence[str]) -> Rows:
        """By the number of characters."""
        return rough_rows(parts.train, parts.validation)

    def rows(self, folder: Path, parts: Parts, labels: Sequence[str]) -> Rows:
        """Prompt and answer as the engine sees them."""
        return encode.encode_parts(hf.load_tokenizer(folder), parts.train, parts.validation)

    def look(
        self, folder: Path, expected: ModelShape, field: str, examples: Sequence[Example] | None, length: int
    ) -> dict[str, float]:
        """Loss per answer token, perplexity, share of answers that are given whole."""
        model = figures.reload_check(folder, expected, field)
        if examples is None:
            return {}
        tokenizer = hf.load_tokenizer(folder)
        rows = encode.encode_all(tokenizer, examples, length)
        return figures.validation(model, rows, int(tokenizer.eos_token_id))


class Classifiers:
    """Encoders with a head."""

    def digest(self, parts: Parts, labels: Sequence[str]) -> str:
        """Texts, labels, and the labels' order."""
        return labelled.digest(parts.train, parts.validation, labels)

    def rough(self, parts: Parts, labels: Sequence[str]) -> Rows:
        """By the number of characters."""
        return labelled.rough_rows(parts.train, parts.validation, labels)

    def rows(self, folder: Path, parts: Parts, labels: Sequence[str]) -> Rows:
        """Texts as the engine sees them, with their label's number in the model's order."""
        tokenizer = hf.load_tokenizer(folder)
        order = labelled.label_order(encoder_shape(hf.read_json(folder / hf.CONFIG)).labels, labels)
        return Rows(
            labelled.encode_all(tokenizer, parts.train, order),
            labelled.encode_all(tokenizer, parts.validation, order),
        )

    def look(
        self, folder: Path, expected: ModelShape, field: str, examples: Sequence[Example] | None, length: int
    ) -> dict[str, float]:
        """Loss and share of right labels, in ONNX Runtime where it is exported."""
        return classifier_figures.look(folder, expected, field, examples, length)


class Embedders(Classifiers):
    """Sentence encoders: texts alone."""

    def digest(self, parts: Parts, labels: Sequence[str]) -> str:
        """Texts."""
        return labelled.digest(parts.train, parts.validation, ())

    def rough(self, parts: Parts, labels: Sequence[str]) -> Rows:
        """By the number of characters."""
        return Rows(labelled.rough_texts(parts.train), labelled.rough_texts(parts.validation))

    def rows(self, folder: Path, parts: Parts, labels: Sequence[str]) -> Rows:
        """Texts as the engine sees them."""
        tokenizer = hf.load_tokenizer(folder)
        return Rows(labelled.texts(tokenizer, parts.train), labelled.texts(tokenizer, parts.validation))


KINDS: dict[Task | None, Kind] = {None: Generators(), TASK: Classifiers(), EMBEDDING: Embedders()}
"""By a plan's task."""
