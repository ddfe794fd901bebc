"""The least likely token: a single doubtful token spoils an answer, however long the sure rest is.

Quantiles at the low end beat the sum and the mean, which carry a length bias (Gupta et al., arXiv
2404.10136).
"""

from __future__ import annotations

from leanmodel_routing.observation import Observation, surprise
from leanmodel_routing.signals.base import Params, Unfitted


class MinLogprob(Unfitted):
    """Two features: the smallest log-probability, and -log(1 - p) of it, which resolves the sure end."""

    name = "min-logprob"
    needs = ("logprobs",)

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features."""
        return ("min_logprob", "min_surprise")

    def values(self, observation: Observation, params: Params) -> list[float]:
        """[log p, -log(1 - p)] of the least likely token."""
        least = observation.ordered[0]
        return [least, surprise(least)]
