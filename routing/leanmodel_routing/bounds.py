"""The label-free bound: what production can watch, counted where both answers are known."""

from __future__ import annotations

import numpy as np

from leanmodel_api.policy import LabelFreeBound
from leanmodel_routing.answers import different
from leanmodel_routing.monitors.label_free import requests_needed
from leanmodel_routing.table import Mask, Table
from leanmodel_routing.tails import clopper_pearson_upper

SHADOW_RATE = 0.02
"""Share of the accepted requests that are shadowed, in the numbers that are printed."""
LEVEL = 0.05
"""Chance of ever a false alarm, in the numbers that are printed."""
SEEN_LOSS = 0.03
"""A loss this far above the bound is what the printed numbers are for."""


def label_free(table: Table, accept: Mask, confidence: float, part: str) -> LabelFreeBound | None:
    """Exact bound on P(accepted and different from the large answer), over records with both answers; None
    without any.

    For a quality in [0, 1] that equal answers share, the mean quality lost is at most this probability. It is
    valid at its confidence where the part had no say in the policy, as the report part has none.
    """
    both = np.array(
        [record.lean_answer is not None and record.large_answer is not None for record in table.records]
    )
    n = int(both.sum())
    if not n:
        return None
    harm = sum(
        different(record.lean_answer or "", record.large_answer or "")
        for record, counted in zip(table.records, (both & accept).tolist(), strict=True)
        if counted
    )
    upper = clopper_pearson_upper(harm, n, confidence)
    return LabelFreeBound(
        estimate=harm / n,
        upper=upper,
        confidence=confidence,
        n=n,
        part=part,
        shadow_accepted=shadows_needed(upper, float(accept[both].mean())),
    )


def shadows_needed(upper: float, accepted: float) -> int:
    """Accepted requests to be shadowed until the monitor sees a loss of SEEN_LOSS above the bound, 9 times in 10.

    At SHADOW_RATE, over requests of which the share `accepted` is accepted; 0 where nothing is accepted, or where
    the bound leaves no room for such a loss.
    """
    if not 0.0 < upper < 1.0:
        return 0
    requests = requests_needed(upper, min(1.0, upper + SEEN_LOSS), SHADOW_RATE, LEVEL)
    return round((requests or 0) * SHADOW_RATE * accepted)


def bound_lines(bound: LabelFreeBound | None) -> list[str]:
    """The bound and its price in words, for a report; empty where there is none."""
    if bound is None:
        return []
    lines = [
        f"without labels: at most {bound.upper:.2%} of the requests keep a lean answer that differs from the large "
        f"model's (seen: {bound.estimate:.2%} of {bound.n}, {bound.part} part, confidence {bound.confidence:.4g}); "
        "the mean quality lost is at most that"
    ]
    if 0.0 < bound.upper < 1.0:
        requests = requests_needed(bound.upper, min(1.0, bound.upper + SEEN_LOSS), SHADOW_RATE, LEVEL)
        lines.append(
            f"  {100 * SEEN_LOSS:.3g} points more are seen after about {bound.shadow_accepted} shadowed requests: "
            f"{requests} in all at {SHADOW_RATE:.0%} shadowing (9 times in 10; {LEVEL:.0%} risk of ever a false alarm)"
        )
    return lines
