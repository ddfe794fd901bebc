"""What a metric is: it judges one answer, and makes a figure of many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from leanmodel_api.datasets import DataSet
from leanmodel_api.parts import Example
from leanmodel_api.report import Estimate

from ..answers import Answer, Score
from ..intervals import Floats, Ints, bootstrap
from .text import normal


@dataclass(frozen=True)
class Task:
    """What the answers are judged against.

    Attributes:
        choices: the answers allowed, normalised, in the manifest's order; empty for free text.
        positive: index of the choice whose F1 is reported.
        answers: whether the examples have wanted answers.
        embeds: whether answers are vectors.
    """

    choices: tuple[str, ...]
    positive: int
    answers: bool
    embeds: bool = False

    @classmethod
    def of(cls, data: DataSet, label_counts: dict[str, int], embeds: bool = False) -> Task:
        """Return the task of a data set; without ``positive`` it is the rarest choice."""
        names = list(data.choices or [])
        choices = tuple(normal(name) for name in names)
        counts = {normal(name): count for name, count in label_counts.items()}
        if data.positive is not None and data.positive in names:
            positive = names.index(data.positive)
        else:
            present = [index for index, name in enumerate(choices) if counts.get(name)] or range(len(choices))
            positive = min(present, key=lambda index: counts.get(choices[index], 0), default=0)
        return cls(choices, positive, data.answer is not None, embeds)


@dataclass(frozen=True)
class Judged:
    """One model's answers to the records of one part, judged; arrays of shape (records,).

    Attributes:
        qualities: per metric the quality of each answer in [0, 1].
        wanted: index of the wanted choice, or NO_CHOICE.
        given: index of the choice given, or NO_CHOICE when the answer is none of them.
        nll: negative log-probability of the scored tokens; empty when nothing was scored.
        tokens: how many tokens were scored.
    """

    qualities: dict[str, Floats]
    wanted: Ints
    given: Ints
    nll: Floats
    tokens: Floats

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.wanted)

    def where(self, other: Judged, take_other: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Judged:
        """Return the routed pair: the other model's judgement where the mask (records,) says so."""
        return replace(
            self,
            qualities={
                name: np.where(take_other, other.qualities[name], own)
                for name, own in self.qualities.items()
                if name in other.qualities
            },
            given=np.where(take_other, other.given, self.given),
            nll=np.where(take_other, other.nll, self.nll)
            if len(self.nll) == len(other.nll) == len(self)
            else self.nll,
            tokens=np.where(take_other, other.tokens, self.tokens)
            if len(self.tokens) == len(other.tokens) == len(self)
            else self.tokens,
        )


@dataclass(frozen=True)
class Item:
    """One answer with all that it may be judged by."""

    example: Example
    answer: Answer
    large: Answer
    score: Score | None


class Metric(Protocol):
    """One metric. ``name`` is the contract's; ``higher_is_better`` tells which way is good."""

    name: str
    higher_is_better: bool

    def applies(self, task: Task, scored: bool) -> bool:
        """Return whether the data has what the metric needs."""
        ...

    def quality(self, item: Item, task: Task) -> float:
        """Return the quality of one answer, in [0, 1]."""
        ...

    def figure(self, judged: Judged, task: Task, counts: Floats) -> Floats:
        """Return the figure of each resample: counts (draws, records) -> values (draws,)."""
        ...

    def estimate(self, judged: Judged, task: Task, seed: int) -> Estimate:
        """Return the figure with its 95% interval."""
        ...


class MeanMetric:
    """Base of the metrics whose figure is the mean quality of the answers."""

    name = ""
    higher_is_better = True

    def figure(self, judged: Judged, task: Task, counts: Floats) -> Floats:
        """Return the mean quality of each resample."""
        values: Floats = counts @ judged.qualities[self.name] / counts.sum(axis=1)
        return values

    def estimate(self, judged: Judged, task: Task, seed: int) -> Estimate:
        """Return the mean quality with its bootstrap interval."""
        return bootstrap(lambda counts: self.figure(judged, task, counts), strata(judged), seed)


def strata(judged: Judged) -> Ints:
    """Return the stratum of each record: its wanted choice."""
    return judged.wanted
