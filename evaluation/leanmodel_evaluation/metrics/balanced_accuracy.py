"""Mean over the classes of the share that was recognised: a constant answer scores 1 / classes."""

from __future__ import annotations

import numpy as np

from leanmodel_api.report import Estimate

from ..intervals import Floats, mean_of_shares, wilson
from .base import Judged, Task
from .choice_accuracy import ChoiceAccuracy


class BalancedAccuracy(ChoiceAccuracy):
    """Mean recall over the classes that occur; a record's own quality is right (1) or wrong (0)."""

    name = "BalancedAccuracy"

    def figure(self, judged: Judged, task: Task, counts: Floats) -> Floats:
        """Return the mean recall of each resample."""
        quality = judged.qualities[self.name]
        recalls = []
        for label in np.unique(judged.wanted):
            mine = judged.wanted == label
            recalls.append(counts[:, mine] @ quality[mine] / counts[:, mine].sum(axis=1))
        values: Floats = np.mean(recalls, axis=0)
        return values

    def estimate(self, judged: Judged, task: Task, seed: int) -> Estimate:
        """Return the mean recall; its interval comes from the classes' Wilson intervals."""
        quality = judged.qualities[self.name]
        shares = [judged.wanted == label for label in np.unique(judged.wanted)]
        return mean_of_shares([wilson(float(quality[mine].sum()), int(mine.sum())) for mine in shares])
