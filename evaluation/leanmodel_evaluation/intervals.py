"""95% intervals: Wilson's for shares, their combination for means of shares, bootstrap for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from leanmodel_api.report import Estimate

Z = 1.959963984540054
DRAWS = 1000
CHUNK = 100

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def wilson(successes: float, n: int) -> Estimate:
    """Return a share with Wilson's score interval (Wilson 1927); holds near 0 and 1 too.

    Args:
        successes: how many were right; n: of how many. Without records the interval is [0, 1].
    """
    if n <= 0:
        return Estimate(value=0.0, low=0.0, high=1.0, n=0)
    share = successes / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return Estimate(
        value=share, low=min(share, max(0.0, centre - half)), high=max(share, min(1.0, centre + half)), n=n
    )


def mean_of_shares(parts: Sequence[Estimate]) -> Estimate:
    """Return the plain mean of independent shares, such as balanced accuracy from its classes' recalls.

    The interval is MOVER's (Zou and Donner, Statistics in Medicine 27, 2008): it recovers each share's
    variance from its own Wilson interval, so that it does not collapse when everything is right.
    """
    if not parts:
        return Estimate(value=0.0, low=0.0, high=1.0, n=0)
    k = len(parts)
    value = sum(part.value for part in parts) / k
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / k
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / k
    return Estimate(
        value=value,
        low=max(0.0, value - below),
        high=min(1.0, value + above),
        n=sum(part.n for part in parts),
    )


def resamples(strata: Ints, draws: int = DRAWS, seed: int = 0) -> Iterator[Floats]:
    """Yield how often each record is drawn, in chunks of shape (at most 100, records).

    Each stratum is resampled by itself, so a rare class never vanishes from a draw.
    """
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        counts = np.zeros((size, len(strata)))
        for members in groups:
            share = np.full(len(members), 1.0 / len(members))
            counts[:, members] = generator.multinomial(len(members), share, size=size)
        yield counts


def bootstrap(
    figure: Callable[[Floats], Floats], strata: Ints, seed: int = 0, draws: int = DRAWS
) -> Estimate:
    """Return a figure with its stratified percentile-bootstrap interval.

    Args:
        figure: from counts of shape (draws, records) to values of shape (draws,); NaN where undefined.
        strata: the stratum of each record, shape (records,).
    """
    n = len(strata)
    if n == 0:
        return Estimate(value=0.0, low=0.0, high=0.0, n=0)
    value = float(figure(np.ones((1, n)))[0])
    return around(value, np.concatenate([figure(counts) for counts in resamples(strata, draws, seed)]), n)


def around(value: float, draws: Floats, n: int) -> Estimate:
    """Return a value with the 2.5% and 97.5% quantiles of its draws; undefined draws are left out."""
    known = draws[np.isfinite(draws)]
    if not len(known) or not math.isfinite(value):
        return Estimate(value=value if math.isfinite(value) else 0.0, low=0.0, high=0.0, n=0)
    low, high = (float(end) for end in np.quantile(known, [0.025, 0.975]))
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=n)


def exact(value: float) -> Estimate:
    """Return a counted figure, such as a ratio of bytes: both ends are the figure."""
    return Estimate(value=value, low=value, high=value, n=1)
