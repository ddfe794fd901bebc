"""Perplexity of the wanted answers (without answers: of the prompts): exp of the mean surprise per token."""

from __future__ import annotations

import math

import numpy as np

from leanmodel_api.report import Estimate

from ..intervals import Floats, bootstrap
from .base import Item, Judged, MeanMetric, Task, strata


class Perplexity(MeanMetric):
    """Lower is better. A record's own quality is 1 / its perplexity: the geometric mean token probability."""

    name = "Perplexity"
    higher_is_better = False

    def applies(self, task: Task, scored: bool) -> bool:
        """Return whether the engine was asked for scores."""
        return scored

    def quality(self, item: Item, task: Task) -> float:
        """Return the geometric mean probability of the tokens of one record, in [0, 1]."""
        if item.score is None or item.score.tokens == 0:
            return 0.0
        return min(1.0, math.exp(-max(0.0, item.score.nll) / item.score.tokens))

    def figure(self, judged: Judged, task: Task, counts: Floats) -> Floats:
        """Return the perplexity of each resample: long records count by their tokens."""
        tokens = counts @ judged.tokens
        mean = np.divide(counts @ judged.nll, tokens, out=np.full_like(tokens, np.nan), where=tokens > 0)
        values: Floats = np.exp(np.minimum(mean, 700.0))
        return values

    def estimate(self, judged: Judged, task: Task, seed: int) -> Estimate:
        """Return the perplexity with its bootstrap interval."""
        return bootstrap(lambda counts: self.figure(judged, task, counts), strata(judged), seed)
