"""Token F1: harmonic mean of precision and recall over the words of answer and reference (SQuAD, 1606.05250)."""

from __future__ import annotations

from collections import Counter

from .base import Item, MeanMetric, Task
from .text import words


class TokenF1(MeanMetric):
    """Overlap of words, each as often as it stands, order aside."""

    name = "TokenF1"

    def applies(self, task: Task, scored: bool) -> bool:
        """Return whether there are wanted answers in free text."""
        return task.answers and not task.choices

    def quality(self, item: Item, task: Task) -> float:
        """Return the F1 of one answer, in [0, 1]."""
        return 0.0 if item.answer.error else overlap(item.answer.text, item.example.answer or "")


def overlap(given: str, wanted: str) -> float:
    """Return the token F1 of two texts; two texts without words agree only when they are equal."""
    mine, theirs = Counter(words(given)), Counter(words(wanted))
    if not mine or not theirs:
        return float(given.strip() == wanted.strip())
    common = sum((mine & theirs).values())
    return 2 * common / (sum(mine.values()) + sum(theirs.values()))
