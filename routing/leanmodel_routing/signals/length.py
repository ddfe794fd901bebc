"""The length of the answer in tokens."""

from __future__ import annotations

import math

from leanmodel_routing.observation import Observation
from leanmodel_routing.signals.base import Params, Unfitted


class Length(Unfitted):
    """One feature: log(1 + tokens)."""

    name = "length"
    needs = ("logprobs",)

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features."""
        return ("log_length",)

    def values(self, observation: Observation, params: Params) -> list[float]:
        """[log(1 + tokens)]."""
        return [math.log1p(len(observation.ordered))]
