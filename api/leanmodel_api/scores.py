"""Certified scores in bins: what a policy carries of them, and what production is held against."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator

BINS = 40


class ScoreReference(BaseModel):
    """The certified scores, counted in bins."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    edges: tuple[float, ...] = Field(
        strict=False, description="Rising ends between the bins; bin i ends at edges[i]."
    )
    counts: tuple[int, ...] = Field(
        strict=False, description="Certified scores in each bin, one more than edges."
    )

    @model_validator(mode="after")
    def _sizes_agree(self) -> ScoreReference:
        if len(self.counts) != len(self.edges) + 1 or sorted(set(self.edges)) != list(self.edges):
            raise ValueError("edges: expected rising ones, and one more count than edges")
        if min(self.counts) < 0:
            raise ValueError(f"counts: found {min(self.counts)}, expected none below 0")
        return self

    @classmethod
    def of(cls, scores: Sequence[float], bins: int = BINS) -> ScoreReference:
        """Bins of about equal counts over the scores [n]; equal scores share a bin."""
        ordered = sorted(scores)
        places = {ordered[len(ordered) * index // bins] for index in range(1, bins)} if ordered else set()
        edges = tuple(sorted(place for place in places if place > ordered[0]))
        counts = [0] * (len(edges) + 1)
        for score in ordered:
            counts[bin_of(score, edges)] += 1
        return cls(edges=edges, counts=tuple(counts))

    @property
    def n(self) -> int:
        """Number of certified scores."""
        return sum(self.counts)


def bin_of(score: float, edges: Sequence[float]) -> int:
    """Index of the bin: how many edges are at or below the score."""
    low, high = 0, len(edges)
    while low < high:
        middle = (low + high) // 2
        if edges[middle] <= score:
            low = middle + 1
        else:
            high = middle
    return low
