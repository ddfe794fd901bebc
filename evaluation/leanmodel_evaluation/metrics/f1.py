"""F1 of the positive choice: 2 TP / (2 TP + FP + FN)."""

from __future__ import annotations

import numpy as np

from leanmodel_api.report import Estimate

from ..intervals import Floats, bootstrap
from .base import Judged, Task, strata
from .choice_accuracy import ChoiceAccuracy


class F1(ChoiceAccuracy):
    """F1 of ``positive``. It is no mean over records, so a promise is certified on balanced accuracy instead."""

    name = "F1"

    def figure(self, judged: Judged, task: Task, counts: Floats) -> Floats:
        """Return the F1 of each resample; 0 where nothing positive was wanted or given."""
        wanted, given = judged.wanted == task.positive, judged.given == task.positive
        hits = counts @ (wanted & given).astype(float)
        either = counts @ wanted.astype(float) + counts @ given.astype(float)
        values: Floats = np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)
        return values

    def estimate(self, judged: Judged, task: Task, seed: int) -> Estimate:
        """Return F1 with its stratified bootstrap interval."""
        return bootstrap(lambda counts: self.figure(judged, task, counts), strata(judged), seed)
