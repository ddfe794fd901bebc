"""Share of answers that give the wanted choice; an answer that is no choice is wrong."""

from __future__ import annotations

from leanmodel_api.report import Estimate

from ..intervals import wilson
from .base import Item, Judged, MeanMetric, Task
from .text import choice


class ChoiceAccuracy(MeanMetric):
    """Accuracy over choices, with Wilson's interval."""

    name = "ChoiceAccuracy"

    def applies(self, task: Task, scored: bool) -> bool:
        """Return whether there are choices."""
        return bool(task.choices)

    def quality(self, item: Item, task: Task) -> float:
        """Return 1 when the answer gives the wanted choice, else 0."""
        given = choice(item.answer.text, task.choices)
        return float(given >= 0 and given == choice(item.example.answer or "", task.choices))

    def estimate(self, judged: Judged, task: Task, seed: int) -> Estimate:
        """Return the share with Wilson's interval."""
        return wilson(float(judged.qualities[self.name].sum()), len(judged))
