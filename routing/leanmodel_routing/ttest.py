"""The t-test, kept under its name as approximate: it holds only in the limit, and rare harms come late to
it.
"""

from __future__ import annotations

import math

import numpy as np

from leanmodel_routing.table import Floats, Table
from leanmodel_routing.tails import student_tail

FEWEST = 300
"""Below this a part without a single harm would have no spread, and the t-test would believe it."""


def t_p_value(table: Table, losses: Floats) -> float:
    """Approximate p-value of `aggregated mean loss ≥ 0`; 1 below FEWEST records.

    Balanced over classes it is Welch's statistic with Satterthwaite's degrees of freedom (classes are
    independent).
    """
    n = len(losses)
    if n < FEWEST:
        return 1.0
    groups = [losses * (table.weight / table.weight.mean())]
    if table.aggregate == "balanced":
        groups = [losses[table.stratum == code] for code in np.unique(table.stratum)]
    if min(len(group) for group in groups) < 2:
        return 1.0
    share = 1.0 / len(groups)
    mean = share * sum(float(group.mean()) for group in groups)
    spreads = [(share**2 * float(group.var(ddof=1)) / len(group), len(group)) for group in groups]
    variance = sum(spread for spread, _ in spreads)
    if variance <= 0.0:
        return 0.0 if mean < 0.0 else 1.0
    freedom = variance**2 / sum(spread**2 / (size - 1) for spread, size in spreads)
    return student_tail(mean / math.sqrt(variance), freedom)
