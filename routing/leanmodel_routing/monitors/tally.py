"""What a router counts between two looks: order-free, mergeable over replicas, plain JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from leanmodel_api.scores import bin_of

DIGITS = 3
"""Significant digits of an inverse propensity: a tally stays small, however many propensities were used."""


class Counts(BaseModel):
    """A tally to be sent or kept: `Tally` as frozen JSON."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    requests: int = Field(
        default=0, ge=0, description="Requests in scope, accepted, escalated or sent large."
    )
    accepted: int = Field(default=0, ge=0, description="Of them: kept the lean answer.")
    shadowed: int = Field(default=0, ge=0, description="Of these: asked of the large model too.")
    harm: dict[str, int] = Field(
        default_factory=dict,
        description="Shadowed answers that differed, by how many requests each stands for (1 / propensity).",
    )
    scores: dict[int, int] = Field(
        default_factory=dict, description="Requests by the bin of their score.", strict=False
    )


class Tally:
    """Counts of one replica over one period. Adding and merging in any order give the same counts.

    A request that is shadowed is counted once its shadow has answered, so that both fall into one period.
    """

    def __init__(self, edges: Sequence[float] = ()) -> None:
        """Count scores between `edges` (rising); no scores are counted where there are none."""
        self.edges = tuple(edges)
        self.requests = self.accepted = self.shadowed = 0
        self.harm: Counter[float] = Counter()
        self.scores: Counter[int] = Counter()

    def request(self, score: float | None, *, accepted: bool) -> None:
        """Count one request in the certificate's scope, whatever became of it.

        `score`: what the decision was made on; None where there was none (it then tells nothing of drift).
        """
        self.requests += 1
        self.accepted += accepted
        if score is not None and self.edges:
            self.scores[bin_of(score, self.edges)] += 1

    def shadow(self, different: bool | float, propensity: float) -> None:
        """Count one accepted answer that was shadowed, with the chance that it had to be.

        `different`: whether it differs from the large model's; a share where one unit is a conversation.
        The request itself is counted by `request`. Raises ValueError for a propensity outside of (0, 1] or a
        share outside of [0, 1]: a chance that was not logged cannot be made good.
        """
        if not 0.0 < propensity <= 1.0:
            raise ValueError(f"propensity: found {propensity}, expected above 0 and at most 1")
        if not 0.0 <= different <= 1.0:
            raise ValueError(f"different: found {different}, expected 0 to 1")
        self.shadowed += 1
        if different:
            self.harm[rounded_down(float(different) / propensity)] += 1

    def merge(self, other: Tally | Counts) -> None:
        """Add another replica's counts."""
        self.requests += other.requests
        self.accepted += other.accepted
        self.shadowed += other.shadowed
        self.scores.update(other.scores)
        self.harm.update({float(size): count for size, count in other.harm.items()})

    def counts(self) -> Counts:
        """The counts as frozen JSON."""
        return Counts(
            requests=self.requests,
            accepted=self.accepted,
            shadowed=self.shadowed,
            harm={repr(size): self.harm[size] for size in sorted(self.harm)},
            scores={place: self.scores[place] for place in sorted(self.scores)},
        )


def rounded_down(value: float) -> float:
    """Down to DIGITS significant digits: a smaller harm than was seen can only make an alarm rarer."""
    scale = 10.0 ** (DIGITS - 1 - math.floor(math.log10(value)))
    return math.floor(value * scale * (1.0 + 1e-12)) / scale
