"""From what a row answered to its figures, with the intervals and metrics of the proof. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from leanmodel_api.datasets import DataSet
from leanmodel_api.parts import Example
from leanmodel_api.report import Estimate
from leanmodel_evaluation.answers import Answer
from leanmodel_evaluation.intervals import Floats, bootstrap
from leanmodel_evaluation.metrics import METRICS, Judged, Task, compare, figures, judge

SHOWN = ("ChoiceAccuracy", "BalancedAccuracy", "F1")


def perplexity(judged: dict[str, Any]) -> Estimate:
    """Return the perplexity per token of the untrimmed tokenizer; windows are resampled."""
    nats, tokens = _arrays(judged)
    return bootstrap(lambda counts: np.exp(counts @ nats / (counts @ tokens)), _alike(nats))


def perplexity_ratio(judged: dict[str, Any], large: dict[str, Any]) -> Estimate:
    """Return a row's perplexity by the large one's, on the same windows."""
    (ours, tokens), (theirs, _) = _arrays(judged), _arrays(large)
    return bootstrap(lambda counts: np.exp(counts @ (ours - theirs) / (counts @ tokens)), _alike(ours))


def choices(judged: dict[str, Any], data: DataSet) -> dict[str, Estimate]:
    """Return the metrics of a row's answers."""
    task, found = _judged(judged, data)
    return {name: value for name, value in figures(found, task, 0).items() if name in SHOWN}


def kept(judged: dict[str, Any], large: dict[str, Any], data: DataSet, metric: str) -> Estimate:
    """Return the share of the large one's metric that a row keeps, on the same messages."""
    (task, ours), (_, theirs) = _judged(judged, data), _judged(large, data)
    return compare(METRICS[metric], ours, theirs, task, 0, ratio=True)


def _judged(judged: dict[str, Any], data: DataSet) -> tuple[Task, Judged]:
    wanted = judged["wanted"]
    task = Task.of(data, dict(Counter(wanted)))
    examples = [Example(id=str(at), text="-", answer=answer) for at, answer in enumerate(wanted)]
    answers = [Answer(request=str(at), text=text) for at, text in enumerate(judged["given"])]
    return task, judge(examples, answers, answers, None, task)


def _arrays(judged: dict[str, Any]) -> tuple[Floats, Floats]:
    return np.array(judged["nats"], dtype=float), np.array(judged["tokens"], dtype=float)


def _alike(values: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.zeros(len(values), dtype=np.int64)
