"""How well vectors stand in for the large model's: the neighbours they find among its vectors, and the angle to them.

An index is built once, and asked for years. So what is measured is a mixed search: the model's vector of a text asks, the
large model's vectors of the part's other texts are searched. The large model finds its own neighbours, so it has 1; a
model that lives in another space has about k / n.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from ..answers import Answer
from ..intervals import Floats, Ints
from .base import Item, MeanMetric, Task

NEIGHBOURS = 10
"""Texts that a search would show."""
Table = np.ndarray[tuple[int, int], np.dtype[np.int64]]
"""Indices of neighbours, nearest first (asking, k)."""
ROWS = 512
"""Texts that are compared at once with all others: bounds the memory."""


def unit_vectors(answers: Sequence[Answer]) -> Floats:
    """Return the vectors scaled to length 1 (answers × width); what was refused is a row of zeros."""
    found = [_vector(answer) for answer in answers]
    width = max((len(vector) for vector in found), default=0)
    rows = np.zeros((len(found), width))
    for index, vector in enumerate(found):
        if len(vector) == width:
            rows[index] = vector
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit


def _vector(answer: Answer) -> Floats:
    if answer.vector is None:
        return np.zeros(0)
    return np.frombuffer(base64.b64decode(answer.vector), dtype="<f4").astype(np.float64)


class NeighborAgreement(MeanMetric):
    """Of a text's ten nearest others by the large model's vectors, the share that the model's vector finds too."""

    name = "NeighborAgreement"

    def applies(self, task: Task, scored: bool) -> bool:
        """Return whether answers are vectors."""
        return task.embeds

    def quality(self, item: Item, task: Task) -> float:
        """Return 1: a text alone has no neighbours; :meth:`of_part` judges a part."""
        return 1.0

    def of_part(self, items: Sequence[Item]) -> Floats:
        """Return the quality of each answer of a part (records,)."""
        mine, large = unit_vectors([i.answer for i in items]), unit_vectors([i.large for i in items])
        if mine.shape != large.shape:
            return np.zeros(len(items))
        k = min(NEIGHBOURS, len(items) - 1)
        if k < 1:
            return np.ones(len(items))
        found = []
        for at in range(0, len(items), ROWS):
            rows = np.arange(at, min(at + ROWS, len(items)))
            found.append(overlap(*(nearest(vectors[rows] @ large.T, rows, k) for vectors in (large, mine))))
        refused = np.array([i.answer.vector is None for i in items])
        return np.where(refused, 0.0, np.concatenate(found))


def nearest(near: Floats, own: Ints, k: int) -> Table:
    """Return the k nearest texts of each that asks, itself left out; of equals the first.

    Args:
        near: how near each text of the corpus is (asking, corpus); written to.
        own: which text of the corpus asks (asking,).
        k: how many.
    """
    near[np.arange(len(own)), own] = -np.inf
    return np.argsort(-near, axis=1, kind="stable")[:, :k]


def overlap(wanted: Table, given: Table) -> Floats:
    """Return the share of each row of neighbours (asking, k) that another table names too (asking,)."""
    return np.array(
        [len(set(a) & set(b)) / len(a) for a, b in zip(wanted.tolist(), given.tolist(), strict=True)]
    )


class EmbeddingCosine(MeanMetric):
    """Cosine of the model's vector with the large model's, no less than 0."""

    name = "EmbeddingCosine"

    def applies(self, task: Task, scored: bool) -> bool:
        """Return whether answers are vectors."""
        return task.embeds

    def quality(self, item: Item, task: Task) -> float:
        """Return the cosine; 0 where one is missing or of another width."""
        mine, large = unit_vectors([item.answer]), unit_vectors([item.large])
        return float(np.clip((mine * large).sum(), 0.0, 1.0)) if mine.shape == large.shape else 0.0
