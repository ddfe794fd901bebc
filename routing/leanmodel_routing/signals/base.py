"""The protocol of a signal: numbers read off one lean answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import JsonValue

from leanmodel_routing.observation import Observation

Params = Mapping[str, JsonValue]


class Signal(Protocol):
    """One signal. The same `values` serves calibration and router, so that the two can never disagree."""

    @property
    def name(self) -> str:
        """Name in the registry."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """What an observation must have: see `Observation.has`."""
        ...

    def fit(self, observations: Sequence[Observation]) -> dict[str, JsonValue]:
        """Parameters learnt from the fit part's observations; plain JSON, often empty."""
        ...

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features, as many as `values` returns."""
        ...

    def values(self, observation: Observation, params: Params) -> list[float]:
        """The features of one observation that has everything in `needs`; finite floats."""
        ...


class Unfitted:
    """Base of signals that learn nothing."""

    def fit(self, observations: Sequence[Observation]) -> dict[str, JsonValue]:
        """No parameters."""
        return {}
