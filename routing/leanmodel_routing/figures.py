"""Figures of a router on records whose two qualities are known, by their published definitions.

CPT, PGR and APGR: Ong et al., "RouteLLM", arXiv 2406.18665, section 2. AIQ: Hu et al., "RouterBench", arXiv
2403.12031, section 3. Qualities are aggregated by the table's mass (plain, weighted or balanced over
classes); large shares are plain shares of requests, because requests are what is paid for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanmodel_routing.table import Floats, Table
from leanmodel_routing.walk import SKIPPED

NO_GAP = 1e-12
MOST_POINTS = 101


@dataclass(frozen=True)
class Curve:
    """All thresholds of a confidence, from all-large to all-lean; arrays of length k + 1.

    `threshold[i]`: accept at this confidence or above (above 1 at i = 0: none is accepted). `share`: large
    share, falling from 1 to 0. `quality`: aggregated quality of the pair. `cost`: dollars per request (the lean
    calls and the large ones), NaN where unknown; at i = 0 the large model alone, which needs no lean call, and
    at the end the lean one alone.
    """

    threshold: Floats
    share: Floats
    quality: Floats
    cost: Floats


def curve_of(table: Table, confidence: Floats, *, direct: bool = False) -> Curve:
    """The curve of a table by its records' confidences [n]; records of one confidence move together.

    `direct`: the lean model is asked only for what it answers (a decision before generation). Else it is asked for
    every request that was not SKIPPED.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    gain = (table.mass * (table.lean - table.large))[order]
    # Last record of each run of equal confidences: thresholds lie between different ones only.
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    quality = quality_of(table, table.large) + np.concatenate([[0.0], np.cumsum(gain)[ends]])
    share = 1.0 - np.concatenate([[0.0], (ends + 1) / len(table)])
    accepted = np.concatenate([[0.0], np.cumsum(table.large_cost[order])[ends]]) / len(table)
    lean = np.concatenate([[0.0], np.cumsum(table.lean_cost[order])[ends]]) / len(table)
    if not direct:
        asked = float(np.sum(np.where(confidence > SKIPPED, table.lean_cost, 0.0))) / len(table)
        lean[1:] = np.where(ranked[ends] > SKIPPED, asked, lean[1:])
    cost = lean + table.large_cost.mean() - accepted
    return Curve(np.concatenate([[2.0], ranked[ends]]), share, np.clip(quality, 0.0, 1.0), cost)


def quality_of(table: Table, quality: Floats) -> float:
    """Aggregated quality of per-record qualities [n]."""
    return float(table.mass @ quality)


def routed(table: Table, accept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Floats:
    """Quality of what each request gets [n]."""
    found: Floats = np.where(accept, table.lean, table.large)
    return found


def gap_reason(lean: float, large: float) -> str | None:
    """Why the gap-based figures do not exist, or None where they do."""
    if large - lean > NO_GAP:
        return None
    return (
        f"the large model (quality {large:.4f}) is not better than the lean one ({lean:.4f}) on these "
        "records: there is no gap to recover"
    )


def gap_recovered(curve: Curve) -> tuple[Floats, Floats]:
    """(large share, share of the gap recovered), both rising with the share; the gap must be above 0."""
    share, quality = curve.share[::-1], curve.quality[::-1]
    return share, (quality - quality[0]) / (quality[-1] - quality[0])


def cpt(curve: Curve, share_of_gap: float) -> float:
    """CPT(x): the least large share at which x of the gap is recovered; between two thresholds the requests
    are taken as mixed by lot, so the curve is joined by straight lines.
    """
    share, recovered = gap_recovered(curve)
    index = int(np.flatnonzero(recovered >= share_of_gap - 1e-12)[0])
    if index == 0:
        return float(share[0])
    x0, x1, y0, y1 = share[index - 1], share[index], recovered[index - 1], recovered[index]
    return float(x0 + (x1 - x0) * min(max((share_of_gap - y0) / (y1 - y0), 0.0), 1.0))


def apgr(curve: Curve) -> float:
    """APGR: the mean of the gap recovered over all large shares, exactly integrated (the paper uses ten
    shares).
    """
    share, recovered = gap_recovered(curve)
    return float(np.trapezoid(recovered, share))


def aiq(cost: Floats, quality: Floats) -> float | None:
    """AIQ: area under the non-decreasing convex hull of (cost, quality), divided by the cost range.

    A mixture by lot of two rules reaches every point between them, and a dearer rule that is worse is never
    chosen: hence the hull, and hence non-decreasing. None where there is no cost range.
    """
    low, high = float(cost.min()), float(cost.max())
    if high - low <= 1e-15:
        return None
    order = np.lexsort((-quality, cost))
    hull: list[tuple[float, float]] = []
    best = -np.inf
    for x, y in zip(cost[order].tolist(), quality[order].tolist(), strict=True):
        if y <= best:
            continue
        best = y
        while len(hull) >= 2 and _turn(hull[-2], hull[-1], (x, y)) >= 0:
            hull.pop()
        hull.append((x, y))
    if hull[-1][0] < high:
        hull.append((high, best))
    xs, ys = np.array(hull).T
    return float(np.trapezoid(ys, xs) / (high - low))


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def plugin_threshold(curve: Curve, retain: float) -> float:
    """The naive rule: the cheapest threshold whose estimate keeps the promise on the very records it is
    chosen on.

    It breaks the promise in about half of all splits; it exists to be shown beside the certified one.
    """
    kept = np.flatnonzero(curve.quality >= retain * curve.quality[0] - 1e-12)
    return float(curve.threshold[kept[-1]])


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """At most about `most` points of the curve, evenly spread over the large share, both ends kept."""
    if len(curve.share) <= most:
        return curve
    wanted = np.searchsorted(-curve.share, -np.linspace(1.0, 0.0, most))
    index = np.unique(np.append(np.clip(wanted, 0, len(curve.share) - 1), len(curve.share) - 1))
    return Curve(curve.threshold[index], curve.share[index], curve.quality[index], curve.cost[index])
