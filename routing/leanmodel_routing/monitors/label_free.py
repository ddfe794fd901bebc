"""The e-process on the label-free bound: is P(accepted and different) still at most what was certified?

Production has no labels. What it can do is ask the large model too for a few of the accepted requests, drawn by
lot with a known chance (the propensity). Such a request that differs stands for 1/propensity requests, all others
for none: the mean of that number over *all* requests is P(accepted and different), whatever the propensities
were (Horvitz & Thompson, JASA 1952). Betting against "its mean is at most the bound" multiplies the stake by
1 + λ·(z - bound), z the number a request stands for; its expectation is at most 1 under the hypothesis, for every
λ fixed beforehand in [0, 1/bound) (Waudby-Smith & Ramdas, arXiv 2010.09686; off-policy: Waudby-Smith et al.,
arXiv 2210.10768).

Units must be independent given the past. Where requests of one conversation hang together, count the
conversation: one draw of the lot, and the share of its requests that were accepted and different.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leanmodel_routing.monitors.capital import Capital, laid_down, log_sum
from leanmodel_routing.monitors.tally import Counts, Tally, rounded_down
from leanmodel_routing.tails import binomial_at_least

RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 9.0, 17.0, 33.0, 65.0)
"""How many times the bound the harm is that a bet is best for. Bets beyond a harm of 1 are left out."""
MOST_REQUESTS = 10**9


class LabelFreeMonitor(BaseModel):
    """One monitor with its state: frozen, plain JSON. `fold` gives the next one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    bound: float = Field(gt=0.0, lt=1.0, description="Certified upper bound of P(accepted and different).")
    rate: float = Field(
        gt=0.0, le=1.0, description="Usual propensity, which sizes the bets; any other is valid too."
    )
    level: float = Field(gt=0.0, lt=1.0, description="Chance of ever a false alarm.")
    capital: Capital = Field(description="The stakes.")
    requests: int = Field(default=0, ge=0, description="Requests seen.")
    shadowed: int = Field(default=0, ge=0, description="Shadowed among them.")
    harm: float = Field(default=0.0, ge=0.0, description="Requests that the differing ones stand for.")

    @model_validator(mode="after")
    def _a_stake_for_each_bet(self) -> LabelFreeMonitor:
        if len(self.capital.logs) != len(bets(self.bound, self.rate)):
            raise ValueError(
                f"capital.logs: found {len(self.capital.logs)}, expected {len(bets(self.bound, self.rate))}"
            )
        return self

    @classmethod
    def of(cls, bound: float, rate: float, level: float) -> LabelFreeMonitor:
        """A fresh monitor; raises ValueError (pydantic's) where a number is out of its range."""
        if not (0.0 < bound < 1.0 and 0.0 < rate <= 1.0):
            raise ValueError(
                f"bound and rate: found {bound} and {rate}, expected a bound in (0, 1) and a rate in (0, 1]"
            )
        return cls(bound=bound, rate=rate, level=level, capital=Capital.of(len(bets(bound, rate))))

    def fold(self, tally: Tally | Counts) -> LabelFreeMonitor:
        """The monitor after one more period. Tallies of one period are merged first, in any order."""
        sizes = {float(size): count for size, count in tally.harm.items()}
        growth = [log_growth(bet, self.bound, tally.requests, sizes) for bet in bets(self.bound, self.rate)]
        return self.model_copy(
            update={
                "capital": self.capital.after(growth),
                "requests": self.requests + tally.requests,
                "shadowed": self.shadowed + tally.shadowed,
                "harm": self.harm + sum(size * count for size, count in sizes.items()),
            }
        )

    @property
    def alarm(self) -> bool:
        """Whether the bound was ever seen to be broken."""
        return self.capital.reached(self.level)

    @property
    def estimate(self) -> float | None:
        """P(accepted and different) as seen since the start; None before the first request."""
        return min(1.0, self.harm / self.requests) if self.requests else None

    def message(self) -> str:
        """One sentence for people."""
        seen = "nothing seen yet" if self.estimate is None else f"seen: {self.estimate:.2%}"
        state = "is broken" if self.alarm else "stands"
        return (
            f"the bound on accepted and different answers ({self.bound:.2%}) {state} ({seen}, {self.shadowed} "
            f"shadowed of {self.requests} requests)"
        )

    def requests_to_see(self, loss: float, chance: float = 0.9, periods: int = 0) -> int | None:
        """`requests_needed` of this monitor after so many quiet periods."""
        return requests_needed(self.bound, loss, self.rate, self.level, chance, periods)


def bets(bound: float, rate: float) -> tuple[float, ...]:
    """The λs: for a harm of ratio · bound the best one is rate·(ratio - 1)/(1 - rate·bound)."""
    most = 0.9 / bound
    ratios = [ratio for ratio in RATIOS if ratio <= most] or [(1.0 + 1.0 / bound) / 2.0]
    return tuple(rate * (ratio - 1.0) / (1.0 - rate * bound) for ratio in ratios)


def log_growth(bet: float, bound: float, requests: int, harm: Mapping[float, int]) -> float:
    """ln of what a bet makes of its stake over `requests`, of which some stand for `harm` (size: count)."""
    events = sum(harm.values())
    # More events than requests can only come of a request that was not counted; each event is at least one.
    quiet = max(requests - events, 0)
    grown = sum(count * math.log1p(bet * (size - bound)) for size, count in harm.items())
    return quiet * math.log1p(-bet * bound) + grown


def requests_needed(
    bound: float, loss: float, rate: float, level: float, chance: float = 0.9, periods: int = 0
) -> int | None:
    """Requests after which a P(accepted and different) of `loss` is seen with at least `chance`.

    Every accepted request is shadowed with chance `rate`; `periods` have gone by when the loss begins. Exact for
    one look at the end (looking at every period can only be earlier); stakes laid down at other times are left
    out, which is the careful side. Multiply by `rate` and the share accepted to have the shadowed ones. None where
    the loss is not above the bound, or not seen within 10^9 requests.
    """
    if not bound < loss <= 1.0:
        return None
    stakes, size = bets(bound, rate), rounded_down(1.0 / rate)
    target = -math.log(level) - math.log(laid_down(periods + 1)) + math.log(len(stakes))

    def enough(requests: int) -> bool:
        low, high = -1, requests + 1
        while high - low > 1:
            middle = (low + high) // 2
            logs = [log_growth(bet, bound, requests, {size: middle}) for bet in stakes]
            found = logs[0]
            for value in logs[1:]:
                found = log_sum(found, value)
            if found >= target:
                high = middle
            else:
                low = middle
        return binomial_at_least(high, requests, loss * rate) >= chance

    top = 1
    while not enough(top):
        top *= 2
        if top > MOST_REQUESTS:
            return None
    low = top // 2
    while top - low > max(1, top // 500):
        middle = (low + top) // 2
        if enough(middle):
            top = middle
        else:
            low = middle
    return top
