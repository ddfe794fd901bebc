"""Money so far, from the router's own metrics."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterable

from leanmodel_api.base import fmt
from leanmodel_api.status import CostSummary

COST = "ray_leanmodel_cost_usd_total"
COUNTERFACTUAL = "ray_leanmodel_counterfactual_cost_usd_total"


def read_costs(address: str) -> CostSummary | None:
    """Return the money that the router has counted, or None when its metrics are not there (yet)."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            lines = answer.read().decode("utf-8", "replace").splitlines()
    except (urllib.error.URLError, OSError):
        return None
    spent, instead = total(lines, COST), total(lines, COUNTERFACTUAL)
    if spent is None or instead is None:
        return None
    return CostSummary(
        usd=fmt(spent, 6), counterfactual_usd=fmt(instead, 6), saving_usd=_signed(instead - spent)
    )


def total(lines: Iterable[str], name: str) -> float | None:
    """Return the sum of a metric over its labels in Prometheus' text format; None when it is not exposed."""
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " "))]
    return sum(values) if values else None


def _signed(value: float) -> str:
    return "-" + fmt(-value, 6) if value < 0 and fmt(-value, 6) != "0" else fmt(max(value, 0.0), 6)
