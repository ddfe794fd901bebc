"""The first tokens: where a short answer is decided, and all that a streaming policy could read."""

from __future__ import annotations

from leanmodel_routing.observation import Observation, surprise
from leanmodel_routing.signals.base import Params, Unfitted

COUNT = 4


class FirstTokens(Unfitted):
    """Two features: the mean log-probability of the first COUNT tokens, and -log(1 - p) of the very first."""

    name = "first-tokens"
    needs = ("logprobs",)

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features."""
        return (f"first_{COUNT}_mean", "first_surprise")

    def values(self, observation: Observation, params: Params) -> list[float]:
        """[mean of the first COUNT log p, -log(1 - p) of the first]."""
        head = (observation.tokens or [0.0])[:COUNT]
        return [sum(head) / len(head), surprise(head[0])]
