"""What a request is told that the ledger does not let through."""

from __future__ import annotations

from ..ledger.books import MODEL, Refusal
from .cost import NANO_PER_USD
from .errors import ApiError
from .receipt import micro_usd

REFUSED = frozenset(
    (
        "invalid_api_key", "insufficient_quota", "budget_too_small", "rate_limit_exceeded", "ledger_unavailable",
        "queue_full", "queue_timeout", "body_timeout", "request_too_large", "request_timeout",
    )
)  # fmt: skip
"""Codes of errors that are the router's own bounds: a closed set, for a metric's label."""
_WORDS = {
    "requests": "this key has used up its requests of the minute",
    "tokens": "this key has used up its tokens of the minute",
    "concurrency": "this key has as many requests under way as it may",
}


def too_fast(refusal: Refusal) -> ApiError:
    """A key asks faster than it may."""
    return ApiError(
        429, f"{_WORDS[refusal.why]}; try again in {refusal.retry_after} s", kind="rate_limit_error",
        code="rate_limit_exceeded", retry_after=refusal.retry_after,
    )  # fmt: skip


def over_budget(refusal: Refusal, most: int) -> ApiError:
    """There is not enough money left for what a request may cost.

    Args:
        most: nano-dollars that it may cost.
    """
    limit = refusal.limit
    span = limit.span if limit is not None else "hour"
    whose = "the budget" if limit is None or limit.account == MODEL else "this key's budget"
    if refusal.never and limit is not None:
        return ApiError(
            400, f"this request may cost {micro_usd(most)} US dollars, and {whose} is "
            f"{limit.nano / NANO_PER_USD:g} an {span}; lower max_tokens".replace("an day", "a day"),
            code="budget_too_small", param="max_tokens",
        )  # fmt: skip
    return ApiError(
        429, f"{whose} of this {span} leaves less than this request may cost; try again in {refusal.retry_after} s, or "
        "lower max_tokens", kind="insufficient_quota", code="insufficient_quota", retry_after=refusal.retry_after,
    )  # fmt: skip


def no_ledger() -> ApiError:
    """The ledger cannot be written: without it no budget would hold."""
    return ApiError(
        503, "what this request costs cannot be recorded at this moment; try again", kind="service_unavailable_error",
        code="ledger_unavailable", retry_after=5,
    )  # fmt: skip
