"""Dollars as whole numbers of 10⁻¹² US dollars: sums are exact, and rounding is always to the bound's side."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

from leanmodel_api.external import TokenPrice

PER_USD = 10**12
PER_MILLION = 10**6


@dataclass(frozen=True)
class Tariff:
    """What a token costs: of a prompt, of an answer (10⁻¹² US dollars)."""

    prompt: int
    answer: int

    def cost(self, prompt_tokens: int, answer_tokens: int) -> int:
        """Return what a call with so many tokens costs."""
        return self.prompt * prompt_tokens + self.answer * answer_tokens


def tariff(price: TokenPrice) -> Tariff:
    """Return a price in dollars per million tokens as whole numbers, rounded up."""
    return Tariff(
        *(
            _whole(text, PER_USD // PER_MILLION, ROUND_CEILING)
            for text in (price.input_usd_per_million_tokens, price.output_usd_per_million_tokens)
        )
    )


def bound(usd: str) -> int:
    """Return a bound in dollars as a whole number, rounded down."""
    return _whole(usd, PER_USD, ROUND_FLOOR)


def dollars(amount: int) -> str:
    """Return an amount in words, such as ``0.0123``, to six digits after the point."""
    return f"{Decimal(amount) / PER_USD:.6f}".rstrip("0").rstrip(".")


def _whole(text: str, scale: int, rounding: str) -> int:
    with localcontext(prec=60):
        return int((Decimal(text) * scale).to_integral_value(rounding))
