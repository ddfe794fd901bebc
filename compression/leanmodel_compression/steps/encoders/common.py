"""What the encoders' steps share: their key's mark, their sizes, their estimates of memory and work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanmodel_api.classification import TASK

from ... import memory
from ...batches import MICRO_TOKENS, Rows
from ...classifiers.rows import label_order
from ...classifiers.shapes import EncoderShape
from ...shapes import ModelShape, forward_flops
from .. import training
from ..protocol import Task, WithoutRows

FLOAT = 4
LOOK_TOKENS = MICRO_TOKENS
# Attention weights per token and head that autograd keeps under dropout: before it, its mask, after it.
KEPT_ATTENTION = 3


class EncoderStep(WithoutRows):
    """What most encoders' steps answer alike."""

    libraries: tuple[str, ...] = ("torch", "transformers")
    teaches = False
    version = 1

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """Return what enters the key; the task is in it, as a decoder's step of the same type is another."""
        own = spec.model_dump(mode="json", exclude={"type"}, exclude_none=True) if spec is not None else {}
        return {**own, "task": TASK}

    def after(self, task: Task) -> ModelShape:
        """The model keeps its shape."""
        return task.shape

    def disk(self, task: Task) -> int:
        """The artifact in float32."""
        return FLOAT * self.after(task).parameters


def encoder(shape: ModelShape) -> EncoderShape:
    """Return the shape as an encoder's: the plan's checks let no other come here."""
    assert isinstance(shape, EncoderShape)
    return shape


def labels_of(task: Task) -> tuple[str, ...]:
    """Return the labels of the model that a step trains, in the order of its outputs: its own where they are the data set's."""
    stored = encoder(task.shape).labels
    return label_order(stored, task.labels) if task.labels else stored


def longest(rows: Rows | None) -> int:
    """Return the tokens of the longest row."""
    return max((len(row.ids) for row in (*rows.train, *rows.validation)), default=1) if rows else 1


def activation_bytes(shape: ModelShape, tokens: int, layers: int) -> int:
    """Return what autograd keeps of a micro-batch, attention weights apart: per token and layer, what the backward pass reads.

    Queries, keys and values as they are and scaled, the attention's result twice, and inputs of two projections and two
    norms make about 10 × hidden + 4 × the attention's width; without a gate the MLP keeps two of its inner width, before
    and after its function. A MiniLM's training was measured at 0.95 of this.
    """
    kept = 10 * shape.hidden + 4 * encoder(shape).relations + 2 * shape.intermediate
    return FLOAT * tokens * layers * kept


def looked(shape: ModelShape, need: int) -> int:
    """Return the larger of a step's estimate and that of looking at what it made, whose file is mapped."""
    looking = FLOAT * shape.parameters + activation_bytes(shape, LOOK_TOKENS, 1)
    return max(need, memory.PROCESS_BYTES + looking)


def training_bytes(task: Task, shape: ModelShape) -> int:
    """Return the peak of training all weights: weights, gradients, two moments, the largest micro-batch."""
    tokens, answers = training.micro(task)
    attention = FLOAT * KEPT_ATTENTION * tokens * shape.heads * longest(task.rows) * shape.layers
    batch = activation_bytes(shape, tokens, shape.layers) + memory.logits_bytes(shape, answers)
    steady = memory.TRAINER_BYTES + 4 * FLOAT * shape.parameters
    checkpoint = 3 * FLOAT * shape.parameters
    return memory.PROCESS_BYTES + steady + max(batch + attention, checkpoint)


def training_flops(task: Task, shape: ModelShape) -> float:
    """Return the operations of forward and backward passes over the whole training."""
    return 3 * forward_flops(shape, training.total_tokens(task), training.total_answers(task))
