"""Capital that bets against a hypothesis for ever: a mixture over bets and over the time to begin.

Each bet multiplies its stake by factors whose expectation is at most 1 while the hypothesis holds. A bet
made from the first request on would by now have lost so much over a good year that a bad day could not show:
so a part of every stake is kept back and laid down anew at the start of each period. The sum of all stakes,
those not yet laid down included, starts at 1 and is a non-negative supermartingale, so by Ville's inequality
it ever reaches 1/level with chance at most `level`, however often it is looked at (mixtures over the time of
change: Shin, Ramdas & Rinaldo, "E-detectors", arXiv 2203.03532, section 2).

What is kept back after j periods is 1/(1 + ln(1 + j)): it falls so slowly that a change in period j costs about
ln j + 2 ln ln j more, and what is laid down never exceeds 1 in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator


def kept_back(periods: int) -> float:
    """Share of every stake that is not laid down before period `periods` is over; 1 at the start."""
    return 1.0 / (1.0 + math.log1p(periods))


def laid_down(period: int) -> float:
    """Share of every stake that is laid down at the start of a period, 1 for the first."""
    return kept_back(period - 1) - kept_back(period)


class Capital(BaseModel):
    """The stakes: small, frozen, plain JSON. Sequential: one period follows another."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    periods: int = Field(default=0, ge=0, description="Periods seen.")
    logs: tuple[float, ...] = Field(
        strict=False, description="ln of what each bet has made of one unit laid down so far."
    )
    peak: float = Field(default=0.0, ge=0.0, description="Greatest ln of the capital so far; never falls.")

    @model_validator(mode="after")
    def _some_bet(self) -> Capital:
        if not self.logs:
            raise ValueError("logs: found no bet, expected at least one")
        return self

    @classmethod
    def of(cls, bets: int) -> Capital:
        """Fresh capital over so many bets of equal weight."""
        return cls(logs=(LEAST,) * bets)

    def after(self, growth: Sequence[float]) -> Capital:
        """The capital after one more period in which bet k grew by exp(growth[k])."""
        period = self.periods + 1
        fresh = math.log(laid_down(period))
        logs = tuple(
            max(LEAST, log_sum(old, fresh) + gained) for old, gained in zip(self.logs, growth, strict=True)
        )
        return Capital(periods=period, logs=logs, peak=max(self.peak, total(logs, period)))

    @property
    def log_total(self) -> float:
        """ln of the capital now: 0 at the start."""
        return total(self.logs, self.periods)

    def reached(self, level: float) -> bool:
        """Whether the capital has ever reached 1/level: an alarm at this level, and it stays one."""
        return self.peak >= -math.log(level)


LEAST = -700.0
"""A stake of e^-700 counts as this much: raising what is all but nothing to this is far below any rounding of
1/level, and JSON holds no infinity.
"""


def total(logs: Sequence[float], periods: int) -> float:
    """ln of the mean over bets of what is laid down and what is kept back."""
    kept = math.log(kept_back(periods))
    top = max(kept, *logs)
    mean = sum(math.exp(value - top) for value in logs) / len(logs)
    return top + math.log(mean + math.exp(kept - top))


def log_sum(one: float, other: float) -> float:
    """ln(e^one + e^other) without overflow."""
    high, low = max(one, other), min(one, other)
    return high + math.log1p(math.exp(low - high))
