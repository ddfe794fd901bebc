"""Money so far, from the router's own metrics."""

from __future__ import annotations

import urllib.error
import urllib.request

from leanmodel_api.base import fmt
from leanmodel_api.status import CostSummary


def read_costs(address: str) -> CostSummary | None:
    """Return the money that the router has counted, or None when its metrics are not there (yet)."""
    return None
