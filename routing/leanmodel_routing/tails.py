"""Tails of the binomial, normal and Student distributions in plain Python: the router's monitors need them
and load no numpy.
"""

from __future__ import annotations

import math
from functools import lru_cache


@lru_cache(maxsize=256)
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


def binomial_at_least(successes: int, n: int, share: float) -> float:
    """P(at least `successes` of `n`) where each succeeds with chance `share`."""
    if successes <= 0:
        return 1.0
    if successes > n:
        return 0.0
    return incomplete_beta(float(successes), float(n - successes + 1), share)


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
