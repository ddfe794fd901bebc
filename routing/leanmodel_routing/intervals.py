"""Intervals: Wilson and Clopper-Pearson for shares, the bootstrap for everything else, and Student's t
tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from leanmodel_api.policy import Interval
from leanmodel_routing.table import Floats, Ints

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


def clopper_pearson_upper(successes: int, n: int, confidence: float) -> float:
    """Exact upper bound of a share at one-sided `confidence`; 1 for n = 0 (Clopper & Pearson 1934)."""
    if n == 0 or successes >= n:
        return 1.0
    low, high = successes / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        # P(at most `successes` | share) = 1 - I_share(successes + 1, n - successes)
        if 1.0 - incomplete_beta(successes + 1.0, float(n - successes), middle) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return high


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


def normal_quantile(share: float) -> float:
    """The standard normal quantile, by bisection on erf; accurate to 1e-12."""
    low, high = -40.0, 40.0
    for _ in range(100):
        middle = (low + high) / 2
        if 0.5 * math.erfc(-middle / math.sqrt(2)) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_tail(t: float, freedom: float) -> float:
    """P(T ≤ t) of Student's distribution with `freedom` degrees of freedom."""
    tail = 0.5 * incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
    return tail if t < 0 else 1.0 - tail


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (Numerical Recipes
    6.4).
    """
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(1.0 - (a + b) * x / (a + 1.0), tiny)
    total = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + term * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + term / c
            c = c if abs(c) > tiny else tiny
            total *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return front * total / a
