"""Why the answer ended: one that was cut off by the token limit is seldom a good one."""

from __future__ import annotations

from leanmodel_routing.observation import Observation
from leanmodel_routing.signals.base import Params, Unfitted


class Finish(Unfitted):
    """One feature: 1 where the answer was cut off (`length`), else 0."""

    name = "finish"
    needs = ("finish_reason",)

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features."""
        return ("cut_off",)

    def values(self, observation: Observation, params: Params) -> list[float]:
        """[1 if cut off else 0]."""
        return [1.0 if observation.finish_reason == "length" else 0.0]
