"""The metrics, one file each, entered here; and what judges the answers of a part with all that apply."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leanmodel_api.parts import Example
from leanmodel_api.report import Estimate

from ..answers import Answer, Score
from ..intervals import Floats, around, resamples, wilson
from .agreement import Agreement
from .balanced_accuracy import BalancedAccuracy
from .base import Item, Judged, Metric, Task, strata
from .choice_accuracy import ChoiceAccuracy
from .exact_match import ExactMatch
from .f1 import F1
from .perplexity import Perplexity
from .rouge_l import RougeL
from .text import NO_CHOICE, choice
from .token_f1 import TokenF1
from .vectors import EmbeddingCosine, NeighborAgreement

_ALL: tuple[Metric, ...] = (
    BalancedAccuracy(),
    ChoiceAccuracy(),
    F1(),
    ExactMatch(),
    TokenF1(),
    RougeL(),
    Perplexity(),
    Agreement(),
    NeighborAgreement(),
    EmbeddingCosine(),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by its name in the manifest."""

INVALID = "InvalidAnswers"
"""Figure beside the metrics: the share of answers that are none of the choices."""


def applicable(task: Task, scored: bool) -> list[Metric]:
    """Return the metrics for which the data has what they need."""
    return [metric for metric in METRICS.values() if metric.applies(task, scored)]


def promised(metric: str) -> str:
    """Return the metric on which a promise about ``metric`` is certified: F1 is no mean over records."""
    return "BalancedAccuracy" if metric == "F1" else metric


def judge(
    examples: Sequence[Example], answers: Sequence[Answer], large: Sequence[Answer],
    scores: Sequence[Score] | None, task: Task,
) -> Judged:  # fmt: skip
    """Return one model's answers to a part, judged by every metric that applies."""
    items = [
        Item(example, answer, other, scores[index] if scores else None)
        for index, (example, answer, other) in enumerate(zip(examples, answers, large, strict=True))
    ]
    return Judged(
        qualities={
            metric.name: metric.of_part(items)
            if isinstance(metric, NeighborAgreement)
            else np.array([metric.quality(item, task) for item in items], dtype=float)
            for metric in applicable(task, scores is not None)
        },
        wanted=np.array([_choice(item.example.answer, task) for item in items], dtype=np.int64),
        given=np.array([_choice(item.answer.text, task) for item in items], dtype=np.int64),
        nll=np.array([score.nll for score in scores or []], dtype=float),
        tokens=np.array([score.tokens for score in scores or []], dtype=float),
    )


def _choice(text: str | None, task: Task) -> int:
    return choice(text, task.choices) if text is not None and task.choices else NO_CHOICE


def figures(judged: Judged, task: Task, seed: int) -> dict[str, Estimate]:
    """Return every figure of a model on a part, with its 95% interval."""
    if not len(judged):
        return {}
    found = {name: METRICS[name].estimate(judged, task, seed) for name in judged.qualities}
    if task.choices:
        found[INVALID] = wilson(float((judged.given == NO_CHOICE).sum()), len(judged))
    return found


def compare(metric: Metric, ours: Judged, theirs: Judged, task: Task, seed: int, *, ratio: bool) -> Estimate:
    """Return ours by theirs (ratio) or ours minus theirs, with a paired stratified bootstrap interval.

    Where lower is better the ratio is theirs by ours, so that 1 always means 'as good' and more 'better'.
    """
    sides = (ours, theirs) if metric.higher_is_better else (theirs, ours)

    def value(counts: Floats) -> Floats:
        top, bottom = (metric.figure(side, task, counts) for side in sides)
        if not ratio:
            return top - bottom
        quotient: Floats = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
        return quotient

    n = len(ours)
    if n == 0:
        return Estimate(value=0.0, low=0.0, high=0.0, n=0)
    point = float(value(np.ones((1, n)))[0])
    return around(point, np.concatenate([value(counts) for counts in resamples(strata(ours), seed=seed)]), n)


__all__ = [
    "INVALID", "METRICS", "NO_CHOICE", "Item", "Judged", "Metric", "Task", "applicable", "choice", "compare",
    "figures", "judge", "promised", "strata",
]  # fmt: skip
