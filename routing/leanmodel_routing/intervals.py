"""Intervals: Wilson for shares, the bootstrap for everything else; Clopper-Pearson is in `tails`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from leanmodel_api.policy import Interval
from leanmodel_routing.table import Floats, Ints
from leanmodel_routing.tails import normal_quantile

DRAWS = 1000
_BUDGET = 20_000_000


def wilson_interval(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share: `successes` of `n` (Wilson 1927). Raises ValueError for n < 1."""
    if n < 1:
        raise ValueError(f"n: found {n}, expected at least 1")
    z = normal_quantile(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(share * (1 - share) / n + z * z / (4 * n * n), 0.0))
    low = 0.0 if successes <= 0 else max(0.0, centre - half)
    high = 1.0 if successes >= n else min(1.0, centre + half)
    return Interval(low=low, high=high, level=level, method="wilson")


def bootstrap_weights(stratum: Ints, seed: int) -> Floats:
    """How often each record is drawn [draws, n], by the bootstrap within strata.

    1,000 draws; fewer (at least 200) where n is so large that the interval is narrow anyway. Costs draws · n.
    """
    n = len(stratum)
    draws = int(min(DRAWS, max(200, _BUDGET // n)))
    rng = np.random.default_rng(seed)
    found: Floats = np.empty((draws, n))
    for code in np.unique(stratum):
        members = np.flatnonzero(stratum == code)
        picked = rng.integers(0, len(members), size=(draws, len(members)), dtype=np.int32)
        offsets = np.arange(draws, dtype=np.int64)[:, None] * len(members)
        counted = np.bincount((picked + offsets).ravel(), minlength=draws * len(members))
        found[:, members] = counted.reshape(draws, len(members))
    return found


def percentile_interval(samples: Floats, level: float = 0.95) -> Interval:
    """The percentile interval of bootstrapped figures [draws] (Efron 1979); NaNs are left out."""
    kept = samples[~np.isnan(samples)]
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level, method="bootstrap")


def bootstrap_interval(
    values: Floats,
    statistic: Callable[[Floats], float] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    draws: int = DRAWS,
) -> Interval:
    """Percentile bootstrap of a statistic of rows of `values` ([n] or [n, k]); the mean where none is
    given.

    For callers with metrics of their own, such as F1: pass one row per record and a function of the drawn
    rows.
    """
    rng = np.random.default_rng(seed)
    measure = statistic or (lambda rows: float(np.mean(rows)))
    n = len(values)
    return percentile_interval(
        np.array([measure(values[rng.integers(0, n, size=n)]) for _ in range(draws)], dtype=np.float64), level
    )
