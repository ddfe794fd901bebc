"""The mean log-probability per token: the length-normalised likelihood of the answer."""

from __future__ import annotations

from leanmodel_routing.observation import Observation
from leanmodel_routing.signals.base import Params, Unfitted


class MeanLogprob(Unfitted):
    """One feature: the mean over the answer's tokens."""

    name = "mean-logprob"
    needs = ("logprobs",)

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features."""
        return ("mean_logprob",)

    def values(self, observation: Observation, params: Params) -> list[float]:
        """[mean log p]."""
        return [sum(observation.ordered) / len(observation.ordered)]
