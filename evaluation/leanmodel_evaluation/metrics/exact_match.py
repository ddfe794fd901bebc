"""Share of answers that equal the wanted one, white space and case aside."""

from __future__ import annotations

from leanmodel_api.report import Estimate

from ..intervals import wilson
from .base import Item, Judged, MeanMetric, Task
from .text import normal


class ExactMatch(MeanMetric):
    """Equality of the whole answer; punctuation counts, since in numbers and code it carries meaning."""

    name = "ExactMatch"

    def applies(self, task: Task, scored: bool) -> bool:
        """Return whether there are wanted answers."""
        return task.answers

    def quality(self, item: Item, task: Task) -> float:
        """Return 1 when the answer is the wanted one, else 0."""
        return float(
            item.answer.error is None and normal(item.answer.text) == normal(item.example.answer or "")
        )

    def estimate(self, judged: Judged, task: Task, seed: int) -> Estimate:
        """Return the share with Wilson's interval."""
        return wilson(float(judged.qualities[self.name].sum()), len(judged))
