"""The confidence of one request: plain Python, no numpy, because the router asks it for every answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from leanmodel_api.policy import Policy, Predictor
from leanmodel_routing.observation import Observation
from leanmodel_routing.signals import features


def sigmoid(score: float) -> float:
    """1 / (1 + e^-score), without overflow."""
    if score >= 0.0:
        return 1.0 / (1.0 + math.exp(-min(score, 700.0)))
    grown = math.exp(max(score, -700.0))
    return grown / (1.0 + grown)


def predict(predictor: Predictor, values: Sequence[float]) -> float:
    """Calibrated confidence in [0, 1] from the features of one answer, in the predictor's order."""
    scores = [intercept + sum(map(mul, weights, values)) for intercept, weights in predictor.folded]
    if predictor.kind == "fine":
        return sigmoid(scores[0])
    benefit = sigmoid(scores[0]) - sigmoid(scores[1])
    return sigmoid(predictor.link_intercept + predictor.link_slope * benefit)


def confidence(policy: Policy, values: Sequence[float]) -> float:
    """Calibrated confidence in [0, 1] that accepting the lean answer does no harm; 0 without a predictor."""
    return predict(policy.predictor, values) if policy.predictor is not None else 0.0


def observed_confidence(predictor: Predictor, observation: Observation) -> float:
    """Confidence of an observation; 0 (the large model answers) where something that a signal needs is
    missing.
    """
    values = features(predictor.signals, observation)
    return 0.0 if values is None else predict(predictor, values)
