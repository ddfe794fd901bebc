"""The margin between the best and the second best token: small where the model hesitates between two
answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from leanmodel_routing.observation import FLOOR, Observation
from leanmodel_routing.signals.base import Params, Unfitted


class Margin(Unfitted):
    """Two features: the first token's margin and the smallest one, both of log-probabilities, at least 0."""

    name = "margin"
    needs = ("margins",)

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features."""
        return ("first_margin", "min_margin")

    def values(self, observation: Observation, params: Params) -> list[float]:
        """[margin of the first token, smallest margin], clipped to [0, 30]."""
        margins = [_margin(pair) for pair in observation.top or ()]
        return [margins[0], min(margins)]


def _margin(pair: Sequence[float]) -> float:
    gap = max(pair[0], FLOOR) - max(pair[1], FLOOR)
    return 0.0 if gap != gap else min(max(gap, 0.0), 30.0)
