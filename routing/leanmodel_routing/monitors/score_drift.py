"""The score-drift test: do requests still come from where the certificate's records came from?

A conformal test martingale (Vovk, "Testing randomness online", Stat. Sci. 2021, arXiv 1906.09256). Each request's
score is ranked among the certified scores and all requests before it; while all of them are exchangeable the
ranks are independent and uniform, whatever the distribution is, so betting on a rank is a fair game. Scores are
counted in bins, and ties are broken by lot, which keeps the ranks exactly uniform. Each bet says: a share of the
requests now falls into one tail of what was certified (its lowest or highest scores, or both ends).

Nothing is assumed of the certified scores, so few of them tell little: a drift that so many scores could not tell
from chance is never seen, and `requests_to_see` then says None. Requests of one conversation hang together: count
one of them (the first), as the certificate did.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leanmodel_api.scores import ScoreReference, bin_of
from leanmodel_routing.monitors.capital import Capital
from leanmodel_routing.monitors.tally import Counts, Tally

BREAKS = (0.05, 0.2, 0.5, 0.8, 0.95)
"""Ends of the ranks' regions."""
TAILS = ((0,), (0, 1), (0, 1, 2), (5,), (4, 5), (3, 4, 5), (0, 5))
"""Regions of which a bet says that they are hit more often."""
SHARES = (0.1, 0.3, 0.7)
"""Share of the requests that a bet moves into its tail."""
RUNS = 40


def _growths() -> tuple[tuple[float, ...], ...]:
    """ln of each bet's factor by region: 1 - share + share·[in the tail]/(width of the tail)."""
    ends = (0.0, *BREAKS, 1.0)
    widths = [high - low for low, high in zip(ends, ends[1:], strict=False)]
    found = []
    for tail in TAILS:
        width = sum(widths[region] for region in tail)
        for share in SHARES:
            found.append(
                tuple(
                    math.log(1.0 - share + (share / width if region in tail else 0.0))
                    for region in range(len(widths))
                )
            )
    return tuple(found)


GROWTHS = _growths()


class ScoreDriftMonitor(BaseModel):
    """One monitor with its state: frozen, plain JSON. `fold` gives the next one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    level: float = Field(gt=0.0, lt=1.0, description="Chance of ever a false alarm.")
    certified: int = Field(ge=0, description="Certified scores among the counts.")
    counts: tuple[int, ...] = Field(strict=False, description="Scores by bin, certified ones and seen ones.")
    capital: Capital = Field(description="The stakes.")
    seed: int = Field(default=0, description="Seed of the lots that break ties.")

    @model_validator(mode="after")
    def _a_stake_for_each_bet(self) -> ScoreDriftMonitor:
        if len(self.capital.logs) != len(GROWTHS):
            raise ValueError(f"capital.logs: found {len(self.capital.logs)}, expected {len(GROWTHS)}")
        return self

    @classmethod
    def of(cls, reference: ScoreReference, level: float, seed: int = 0) -> ScoreDriftMonitor:
        """A fresh monitor beside the certified scores."""
        return cls(
            level=level,
            certified=reference.n,
            counts=reference.counts,
            capital=Capital.of(len(GROWTHS)),
            seed=seed,
        )

    def fold(self, tally: Tally | Counts) -> ScoreDriftMonitor:
        """The monitor after one more period. Tallies of one period are merged first, in any order.

        Within a period the order is drawn by lot, which changes nothing while requests are exchangeable. Raises
        ValueError for a bin that the certified scores do not have.
        """
        if tally.scores and not 0 <= min(tally.scores) <= max(tally.scores) < len(self.counts):
            raise ValueError(
                f"scores: found bin {max(tally.scores)}, expected 0 to {len(self.counts) - 1}: "
                "the tally was counted for another policy"
            )
        lots = random.Random(f"{self.seed} {self.capital.periods}")
        order = [place for place in sorted(tally.scores) for _ in range(tally.scores[place])]
        lots.shuffle(order)
        counts = list(self.counts)
        size = sum(counts)
        hits = [0] * (len(BREAKS) + 1)
        for place in order:
            counts[place] += 1
            size += 1
            rank = (sum(counts[:place]) + lots.random() * counts[place]) / size
            hits[bin_of(rank, BREAKS)] += 1
        growth = [sum(hit * gain for hit, gain in zip(hits, gains, strict=True)) for gains in GROWTHS]
        return self.model_copy(update={"counts": tuple(counts), "capital": self.capital.after(growth)})

    @property
    def alarm(self) -> bool:
        """Whether drift was ever seen."""
        return self.capital.reached(self.level)

    def message(self) -> str:
        """One sentence for people."""
        seen = sum(self.counts) - self.certified
        state = "have drifted away from" if self.alarm else "look like"
        return f"the scores of {seen} requests {state} the {self.certified} certified ones"


def requests_to_see(
    reference: ScoreReference,
    drifted: Sequence[float],
    level: float,
    *,
    chance: float = 0.9,
    quiet: int = 0,
    period: int = 50,
    most: int = 20_000,
    seed: int = 0,
) -> int | None:
    """Requests after which a drift is seen with about `chance`, by RUNS simulated runs of the monitor itself.

    `drifted`: weights of the bins after the drift; before it, for `quiet` requests, they are the certified ones.
    `period`: requests between two looks. None where fewer runs than that see it within `most` requests. About
    2 µs a simulated request.
    """
    found = []
    places = range(len(reference.counts))
    for run in range(RUNS):
        lots = random.Random(f"{seed} {run}")
        # The certified scores are a sample too; the drift is from where they came from.
        monitor = ScoreDriftMonitor.of(reference, level, seed=run)
        for weights, until in ((reference.counts, quiet), (drifted, most)):
            seen = 0
            while seen < until and not monitor.alarm:
                tally = Tally()
                tally.scores.update(lots.choices(places, weights, k=min(period, until - seen)))
                monitor = monitor.fold(tally)
                seen += period
        found.append(seen if monitor.alarm else math.inf)
    needed = sorted(found)[math.ceil(chance * RUNS) - 1]
    return None if math.isinf(needed) else int(needed)


def worse(reference: ScoreReference, share: float, tail: float = 0.1) -> tuple[float, ...]:
    """Weights of the bins when a `share` of the requests scores like the lowest `tail` of the certified ones."""
    size = reference.n
    weights, below = [], 0.0
    for count in reference.counts:
        low = max(0.0, min(count, tail * size - below)) / (tail * size) if size else 0.0
        weights.append((1.0 - share) * count / max(size, 1) + share * low)
        below += count
    return tuple(weights)
