"""Which of a few answers was given: in a classification task a model may be trusted on one class, not on
another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import JsonValue

from leanmodel_routing.observation import Observation
from leanmodel_routing.signals.base import Params

MOST = 12
"""More different answers than this are free text, and the signal then has no features."""


class AnswerChoice:
    """One feature for each answer but the commonest: 1 where it was given. No features on free text."""

    name = "answer-choice"
    needs = ("answer",)

    def fit(self, observations: Sequence[Observation]) -> dict[str, JsonValue]:
        """`choices`: the answers given by at least 1% of the fit part, commonest (the base) first."""
        counts = Counter(_normal(item) for item in observations)
        common = [text for text, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        kept = [text for text in common if counts[text] >= max(5, 0.01 * len(observations))]
        covered = sum(counts[text] for text in kept)
        if len(kept) > MOST or covered < 0.8 * len(observations):
            kept = []
        choices: list[JsonValue] = list(kept)
        return {"choices": choices}

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(f"answer={text}" for text in _choices(params)[1:])

    def values(self, observation: Observation, params: Params) -> list[float]:
        """One-hot of the answer over the choices after the first."""
        given = _normal(observation)
        return [1.0 if given == text else 0.0 for text in _choices(params)[1:]]


def _choices(params: Params) -> list[JsonValue]:
    choices = params.get("choices")
    return choices if isinstance(choices, list) else []


def _normal(observation: Observation) -> str:
    return (observation.answer or "").strip().lower()[:80]
