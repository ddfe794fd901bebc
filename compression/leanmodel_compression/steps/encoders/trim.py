"""Trim: an encoder's vocabulary is cut to what a domain uses. Rows of the token table go, the rest stays bit for bit.

The table is half of a MiniLM and more of its students. Which tokens stay: :mod:`..vocabulary`; how the result is held
against the model that it was cut from: :class:`..trim.Trimming`, by logits here, by hidden states where there is no head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leanmodel_api.classification import EMBEDDING, TASK
from leanmodel_api.classification import Task as TaskName

from ... import memory
from ...batches import Labelled, Row
from ...classifiers import models
from ...shapes import ModelShape, forward_flops
from ..protocol import Place, Task, Work
from ..trim import COMPARED_ROWS, COMPARED_TOKENS, Trimming, train
from .common import FLOAT, encoder, looked

TABLE = "embeddings.word_embeddings.weight"
WITHIN = "##"
"""What pieces within a word begin with."""
CHARACTERS = 2000
"""Pieces of one character in BERT's table, at a word's beginning and within it."""
TOKENIZER_BYTES = 2048
"""Of both tokenizers and their vocabularies as Python's, for each token of the larger."""


class EncoderTrimming(Trimming):
    """Removes tokens that a domain does not use.

    Args:
        task: of the model.
    """

    dtype = "float32"

    def __init__(self, task: TaskName = TASK):
        """Make the step."""
        self.task = task

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """How many tokens stay at least, and the task: a decoder's Trim is another step."""
        return {**super().settings(spec), "task": self.task}

    def after(self, task: Task) -> ModelShape:
        """A smaller table, by a guess on its large side: only the tokenizer's own files can tell."""
        used = len({number for row in train(task) for number in self.tokens(row)})
        guess = max(task.spec.min_vocabulary or 0, CHARACTERS + used)
        return encoder(task.shape).with_vocabulary(min(task.shape.vocabulary, guess))

    def memory(self, task: Task) -> int:
        """The model is loaded once whole and once cut, one after the other, beside both tokenizers and the tensors read."""
        held = 2 * FLOAT * task.shape.parameters + TOKENIZER_BYTES * task.shape.vocabulary
        return looked(task.shape, memory.PROCESS_BYTES + held)

    def disk(self, task: Task) -> int:
        """The artifact in float32."""
        return FLOAT * self.after(task).parameters

    def work(self, task: Task) -> Work:
        """Copying the weights, two short passes, and encoding every row twice."""
        tokens, seen = COMPARED_ROWS * COMPARED_TOKENS, sum(len(row.ids) for row in train(task))
        flops = 2 * forward_flops(task.shape, tokens, COMPARED_ROWS)
        return Work(flops=flops, bytes=20.0 * task.shape.parameters, seconds=3.0 + 1e-5 * seen)

    def tables(self, place: Place) -> tuple[str, ...]:
        """The token table; its name begins with the family's, where there is a head."""
        return (TABLE,)

    def tokens(self, row: Row) -> Sequence[int]:
        """Return a row's tokens: behind them stands its label."""
        return row.ids[: row.first]

    def text(self, row: Row, tokenizer: Any) -> str:
        """Return a row's text as the data set has it."""
        assert isinstance(row, Labelled)
        return row.text

    def read(self, tokenizer: Any, ids: Sequence[int]) -> str:
        """Return the pieces put together: not every tokenizer of an encoder knows how to write its pieces as a text."""
        return "".join(piece.removeprefix(WITHIN) for piece in tokenizer.convert_ids_to_tokens(list(ids)))

    def load(self, folder: Path) -> Any:
        """Return the classifier, or the encoder without a head."""
        return models.load_base(folder) if self.task == EMBEDDING else models.load(folder)

    def answers(self, model: Any, ids: Any, kept: Sequence[int] | None) -> Any:
        """Return the labels' logits, or the tokens' hidden states."""
        found = model(input_ids=ids)
        return (found.last_hidden_state if self.task == EMBEDDING else found.logits)[0]
