"""What a request costs, in whole numbers: pico-dollars as rates, nano-dollars as sums."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from leanmodel_api.router import Backend, CostBasis
from leanmodel_api.serving import Price

_PICO = Decimal(10) ** 12
NANO_PER_USD = 10**9
BYTES_PER_TOKEN = 4
"""Of ordinary text: a guess, for where nobody has counted."""
MOST_TOKENS = 10**9
"""More in one generation is no count."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one generation."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        """Prompt and answer together."""
        return self.prompt + self.completion

    @classmethod
    def of(cls, usage: object) -> Usage:
        """Read OpenAI's ``usage`` object; what is missing counts as 0."""
        if not isinstance(usage, dict):
            return cls()
        return cls(_tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens")))


def _tokens(found: object) -> int:
    """Return a number of tokens; what nobody can have counted is 0: who says it may be somebody else's server."""
    return int(found) if isinstance(found, int | float) and 0 <= found < MOST_TOKENS else 0


@dataclass(frozen=True)
class Tariff:
    """A backend's price as rates.

    Attributes:
        basis: how costs are found.
        prompt_pico: pico-dollars per prompt token.
        completion_pico: pico-dollars per answer token.
        second_pico: pico-dollars per second of a request (basis wall-time).
    """

    basis: CostBasis = "none"
    prompt_pico: int = 0
    completion_pico: int = 0
    second_pico: int = 0

    @classmethod
    def of(cls, backend: Backend) -> Tariff:
        """Return the tariff of a backend."""
        return cls.priced(backend.price, backend.tokens_per_second)

    @classmethod
    def priced(cls, price: Price | None, tokens_per_second: str | None = None) -> Tariff:
        """Return the tariff of a price: per token where it says so, else by the replica-hour."""
        if price is None:
            return cls()
        per_prompt = price.input_usd_per_million_tokens
        per_completion = price.output_usd_per_million_tokens
        if per_prompt is not None or per_completion is not None:
            micro = Decimal(10) ** 6
            return cls(
                "tokens",
                prompt_pico=round(Decimal(per_prompt or 0) * _PICO / micro),
                completion_pico=round(Decimal(per_completion or 0) * _PICO / micro),
            )
        if price.usd_per_hour is None:
            return cls()
        per_second = Decimal(price.usd_per_hour) * _PICO / 3600
        if tokens_per_second is None:
            return cls("wall-time", second_pico=round(per_second))
        per_token = round(per_second / Decimal(tokens_per_second))
        return cls("throughput", prompt_pico=per_token, completion_pico=per_token)

    def nano(self, usage: Usage, seconds: float) -> int:
        """Return the cost of a generation in nano-dollars, rounded to the nearest.

        Args:
            usage: its tokens.
            seconds: how long it took.
        """
        pico = usage.prompt * self.prompt_pico + usage.completion * self.completion_pico
        if self.second_pico:
            pico += int(seconds * self.second_pico)
        return (pico + 500) // 1000


def usd(nano: int) -> str:
    """Return nano-dollars as a decimal number of dollars."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    whole, rest = divmod(nano, NANO_PER_USD)
    return f"{sign}{whole}.{rest:09d}"


class Pace:
    """How long the large model takes per token, seen so far: prices what it was *not* asked by wall time."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._seconds = 0.0
        self._tokens = 0

    def saw(self, usage: Usage, seconds: float) -> None:
        """Take in one answer of the large model."""
        self._seconds += seconds
        self._tokens += usage.total

    def seconds(self, usage: Usage, otherwise: float) -> float:
        """Return how long the large model would take for as many tokens; ``otherwise`` when it was never seen."""
        return self._seconds / self._tokens * usage.total if self._tokens else otherwise


@dataclass(frozen=True)
class Bill:
    """What one request cost, and what it had cost at the large model. Nano-dollars."""

    basis: CostBasis
    cost: int = 0
    counterfactual: int = 0

    @property
    def known(self) -> bool:
        """Whether there were prices to count with."""
        return self.basis != "none"


def bill(
    lean: tuple[Tariff, Usage, float] | None,
    large: tuple[Tariff, Usage, float] | None,
    large_tariff: Tariff,
    pace: Pace,
    external: tuple[Tariff, Usage, float] | None = None,
) -> Bill:
    """Count a request.

    Args:
        lean: tariff, tokens and seconds of the lean generation, when there was one.
        large: the same of the large one, when there was one.
        large_tariff: what the large model costs.
        pace: how fast the large model is.
        external: as `lean`, of the external provider.

    Where only the lean model answered, the large one is taken to need as many tokens. A price missing on a side
    that worked makes the whole unknown: half a cost would look like a saving. What was paid outside is known whatever our
    own models cost; where they have no price it is the whole, and nothing is called a saving.
    """
    used = [part for part in (lean, large, external) if part is not None]
    bases = [tariff.basis for tariff, _, _ in used]
    if (
        external is not None
        and external[0].basis != "none"
        and ("none" in bases or large_tariff.basis == "none")
    ):
        paid = external[0].nano(external[1], external[2])
        return Bill(external[0].basis, paid, paid)
    if not used or "none" in bases or large_tariff.basis == "none":
        return Bill("none")
    cost = sum(tariff.nano(usage, seconds) for tariff, usage, seconds in used)
    if large is not None:
        counterfactual = large[0].nano(large[1], large[2])
    else:
        _, usage, seconds = external or used[0]
        counterfactual = large_tariff.nano(usage, pace.seconds(usage, otherwise=seconds))
    return Bill("wall-time" if "wall-time" in bases else bases[-1], cost, counterfactual)
