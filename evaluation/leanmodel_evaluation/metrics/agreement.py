"""Agreement with the large model's answer, for data without references.

Both models decode greedily, so the large model agrees with itself and the figure needs no normalising
by its self-agreement; a sampled large model would not.
"""

from __future__ import annotations

from leanmodel_api.report import Estimate

from ..intervals import wilson
from .base import Item, Judged, MeanMetric, Task
from .rouge_l import rouge_l
from .text import choice, normal


class Agreement(MeanMetric):
    """The same choice (1 or 0); in free text ROUGE-L of the answer against the large model's."""

    name = "Agreement"

    def applies(self, task: Task, scored: bool) -> bool:
        """Return whether the large model answers in words."""
        return not task.embeds

    def quality(self, item: Item, task: Task) -> float:
        """Return how far the answer is the large model's, in [0, 1]."""
        given, wanted = item.answer.text, item.large.text
        if item.answer.error is not None or item.large.error is not None:
            return float(item.answer.error is not None and item.large.error is not None)
        if not task.choices:
            return 1.0 if given == wanted else rouge_l(given, wanted)
        mine, theirs = choice(given, task.choices), choice(wanted, task.choices)
        return float(mine == theirs if mine >= 0 or theirs >= 0 else normal(given) == normal(wanted))

    def estimate(self, judged: Judged, task: Task, seed: int) -> Estimate:
        """Return the mean: with choices a share with Wilson's interval, else with a bootstrap interval."""
        if task.choices:
            return wilson(float(judged.qualities[self.name].sum()), len(judged))
        return super().estimate(judged, task, seed)
