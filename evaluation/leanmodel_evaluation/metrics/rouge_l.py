"""ROUGE-L: F-measure of the longest common subsequence of words (Lin 2004)."""

from __future__ import annotations

from .base import Item, MeanMetric, Task
from .text import words


class RougeL(MeanMetric):
    """Words in common in the same order, against the wanted answer."""

    name = "RougeL"

    def applies(self, task: Task, scored: bool) -> bool:
        """Return whether there are wanted answers in free text."""
        return task.answers and not task.choices

    def quality(self, item: Item, task: Task) -> float:
        """Return ROUGE-L's F-measure of one answer, in [0, 1]."""
        return 0.0 if item.answer.error else rouge_l(item.answer.text, item.example.answer or "")


def rouge_l(given: str, wanted: str) -> float:
    """Return ROUGE-L's F-measure (beta 1) of two texts; without words, 1 when they are equal and else 0."""
    mine, theirs = words(given), words(wanted)
    if not mine or not theirs:
        return float(given.strip() == wanted.strip())
    return 2 * _common(mine, theirs) / (len(mine) + len(theirs))


def _common(left: list[str], right: list[str]) -> int:
    """Return the length of the longest common subsequence; O(left x right) time, O(right) memory."""
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for index, other in enumerate(right, start=1):
            above = row[index]
            row[index] = diagonal + 1 if word == other else max(above, row[index - 1])
            diagonal = above
    return row[-1]
