"""The entropy of the next token's distribution: how many continuations the model wavers between, not only the best two.

An engine tells the k best log-probabilities alone. With r the mass of all others, none of which is above the k-th best
p_k, their part of the entropy is at least r·(-ln min(p_k, r)): each of them is at most that likely. So

    H ≥ Σ_{i≤k} -p_i ln p_i + r·(-ln min(p_k, r)),

and what is missing is at most r·ln((V - k)·min(p_k, r) / r) with V words in the vocabulary (all of r spread evenly).
With k = 5 and r = 0.01 that is below 0.1 nats; where the model is unsure of more than k words it can be several nats, and
the bound still grows with the doubt. The bound is what is read, since it needs no vocabulary. It depends on k, so k is
learnt on the fit part and asked for in production.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import JsonValue

from leanmodel_routing.observation import FLOOR, Observation
from leanmodel_routing.signals.base import Params

FEWEST, MOST = 2, 20
"""Best log-probabilities per token: what `margins` promises, and what OpenAI's API gives at most."""


class Entropy:
    """Three features, in nats: the first token's entropy, the mean and the greatest over the answer (lower bounds)."""

    name = "entropy"
    needs = ("margins",)

    def fit(self, observations: Sequence[Observation]) -> dict[str, JsonValue]:
        """`best`: how many log-probabilities every token of the fit part has."""
        having = [len(best) for item in observations if item.has("margins") for best in item.top or ()]
        return {"best": min(MOST, max(FEWEST, min(having, default=FEWEST)))}

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features."""
        return ("first_entropy", "mean_entropy", "max_entropy")

    def values(self, observation: Observation, params: Params) -> list[float]:
        """[of the first token, mean, greatest]."""
        wanted = params.get("best")
        best = wanted if isinstance(wanted, int) else FEWEST
        found = [entropy_at_least(top[:best]) for top in observation.top or ()]
        return [found[0], sum(found) / len(found), max(found)]


def entropy_at_least(best: Sequence[float]) -> float:
    """Least entropy in nats of a distribution whose greatest log-probabilities are these, best first.

    What no engine should write is read as the greater doubt: no number as impossible, a log-probability above 0 as 0.
    """
    logs = [min(0.0, max(value, FLOOR)) if value == value else FLOOR for value in best]
    chances = [math.exp(value) for value in logs]
    rest = max(0.0, 1.0 - sum(chances))
    known = -sum(chance * value for chance, value in zip(chances, logs, strict=True))
    most = min(chances[-1], rest)
    return known + (rest * -math.log(max(most, math.exp(FLOOR))) if rest > 0.0 else 0.0)
