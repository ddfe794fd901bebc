"""What a request's own headers ask of its route, where the manifest lets them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

from .ask import Ask
from .cost import NANO_PER_USD, Tariff, Usage, usd
from .errors import ApiError

ROUTE = "x-leanmodel-route"
MOST = "x-leanmodel-max-cost-usd"
LEAST = "x-leanmodel-min-confidence"
HEADERS = (ROUTE, MOST, LEAST)
_TEMPLATE_TOKENS = 64
"""What a chat template puts around each message, at most, as far as any is known."""


@dataclass(frozen=True)
class Wishes:
    """What is wished for.

    Attributes:
        route: the model that shall answer; None leaves it to the policy.
        min_confidence: a lean answer below it is not wanted, though the policy would keep it.
        max_nano: nano-dollars that the request may cost; None for any.
    """

    route: Literal["large", "lean"] | None = None
    min_confidence: float = 0.0
    max_nano: int | None = None


NO_WISHES = Wishes()


def wishes(headers: Mapping[str, str], allowed: bool, has_lean: bool) -> Wishes:
    """Return what the headers ask for.

    Args:
        headers: those of :data:`HEADERS` that the request has.
        allowed: whether the manifest allows them.
        has_lean: whether there is a lean model in service.

    Raises:
        ApiError: 403 where they are not allowed, 400 for a value that is none.
    """
    if not headers:
        return NO_WISHES
    if not allowed:
        raise ApiError(
            403, f"{next(iter(headers))}: not allowed here; leave the header out, or set spec.routing.overrides to "
            "Allowed in the LeanModel", code="override_not_allowed", param=next(iter(headers)),
        )  # fmt: skip
    route = headers.get(ROUTE)
    if route not in (None, "large", "lean"):
        raise _bad(ROUTE, route, "large or lean")
    if route == "lean" and not has_lean:
        raise ApiError(
            400, f"{ROUTE}: found lean, but no lean model is in service; leave the header out",
            code="no_lean_model", param=ROUTE,
        )  # fmt: skip
    least = _number(headers, LEAST, "a number from 0 to 1", Decimal(1))
    most = _number(headers, MOST, "US dollars, such as 0.002", Decimal(10**6))
    return Wishes(
        "large" if route == "large" else "lean" if route == "lean" else None,
        float(least or 0),
        None if most is None else int(most * NANO_PER_USD),
    )


def affordable(
    way: Literal["large", "lean", "try"], ask: Ask, fill: Mapping[str, float | int], lean: Tariff, large: Tariff, most: int
) -> Literal["large", "lean", "try"]:  # fmt: skip
    """Return the way that cannot cost more than ``most`` nano-dollars: the one given, else large, else lean.

    The bound counts a token for each byte of the prompt, which is more than any tokenizer makes of it, and
    ``max_tokens`` of answer; a way of both models costs both.

    Raises:
        ApiError: 400 where the cost has no bound (no ``max_tokens``, a price by the second), or no way is so cheap.
    """
    costs = {name: most_cost(ask, fill, tariff) for name, tariff in (("lean", lean), ("large", large))}
    in_lean, in_large = costs["lean"], costs["large"]
    if in_lean is None or in_large is None:
        raise ApiError(
            400, f"{MOST}: the cost of this request has no bound; give max_tokens and a prompt of plain text (and the "
            "LeanModel a price by tokens, or a measured throughput)", code="cost_unbounded", param=MOST,
        )  # fmt: skip
    if {"lean": in_lean, "large": in_large, "try": in_lean + in_large}[way] <= most:
        return way
    if in_large <= most:
        return "large"
    if in_lean <= most:
        return "lean"
    raise ApiError(
        400, f"{MOST}: the lean model alone may cost {usd(in_lean)}; lower max_tokens, or allow more",
        code="cost_limit", param=MOST,
    )  # fmt: skip


def most_cost(ask: Ask, fill: Mapping[str, float | int], tariff: Tariff) -> int | None:
    """Return the nano-dollars that a request can cost at most at a tariff; None where it has no bound.

    A token is counted for each byte of the prompt, which is more than any tokenizer makes of it.
    """
    limit, text = ask.sampling("max_tokens", fill), ask.text()
    if text is None or not isinstance(limit, int) or limit <= 0 or tariff.basis in ("none", "wall-time"):
        return None
    messages, answers = len(ask.body.get("messages") or ()) + 1, ask.sampling("n", fill) or 1
    if not math.isfinite(answers):
        return None
    return tariff.nano(Usage(len(text.encode()) + messages * _TEMPLATE_TOKENS, limit * int(answers)), 0.0)


def _number(headers: Mapping[str, str], name: str, expected: str, most: Decimal) -> Decimal | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise _bad(name, text, expected) from None
    if not value.is_finite() or not 0 <= value <= most:
        raise _bad(name, text, expected)
    return value


def _bad(name: str, found: str | None, expected: str) -> ApiError:
    return ApiError(400, f"{name}: found {str(found)[:60]!r}, expected {expected}", param=name)
