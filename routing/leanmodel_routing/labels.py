"""A classifier's answer as the signals read it: one token, whose alternatives are the other labels."""

from __future__ import annotations

import math

LEAST = 1e-12
"""Probabilities below it count as this: the logarithm of 0 is no number."""


def log_probability(value: float) -> float:
    """Return the natural logarithm of a label's probability, at most 0."""
    return min(0.0, math.log(max(value, LEAST)))
