"""Base of signals that say whether an answer has a shape: one feature, 1 where it has it.

A shape tells only where answers of the task sometimes have it and sometimes not: that is learnt on the fit part, and
elsewhere the signal has no feature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from pydantic import JsonValue

from leanmodel_routing.observation import Observation
from leanmodel_routing.signals.base import Params

FEWEST, SHARE = 5, 0.01
"""Answers with the shape, and without it, that the fit part must have: so many, and such a share of it."""
_FENCE = "```"


class Shape(ABC):
    """One feature: 1 where the answer has the shape, else 0. No feature where all or none of the fit part's have it."""

    name: str
    needs = ("answer",)

    @abstractmethod
    def has(self, text: str) -> bool:
        """Whether an answer, without the space around it, has the shape."""

    def fit(self, observations: Sequence[Observation]) -> dict[str, JsonValue]:
        """`tells`: whether the fit part has enough answers of either kind."""
        return {"tells": tells([self.has((item.answer or "").strip()) for item in observations])}

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features."""
        return (self.name.replace("-", "_"),) if params.get("tells") else ()

    def values(self, observation: Observation, params: Params) -> list[float]:
        """[1 if it has the shape else 0], or nothing where that tells nothing."""
        if not params.get("tells"):
            return []
        return [1.0 if self.has((observation.answer or "").strip()) else 0.0]


def tells(having: Sequence[bool]) -> bool:
    """Whether the fit part has enough answers with the shape and without it."""
    return min(sum(having), len(having) - sum(having)) >= max(FEWEST, SHARE * len(having))


def unfenced(text: str) -> str:
    """The text inside the fence where a whole answer is one fenced block (Markdown), else the text itself."""
    if not (text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) > 2 * len(_FENCE)):
        return text
    _, found, inside = text[: -len(_FENCE)].partition("\n")
    return inside.strip() if found and _FENCE not in inside else text
