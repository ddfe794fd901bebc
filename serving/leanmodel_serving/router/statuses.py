"""What the router answers that is no answer, and the headers it writes: tables, for the document of its addresses.

Tests hold both against the sources: a code or a header that is written somewhere and stands not here is found.
"""

from __future__ import annotations

STATUSES: dict[int, dict[str, str]] = {
    400: {
        "": "a field of the body, or a header, that will not do; param names it",
        "invalid_json": "the body is no JSON object",
        "no_lean_model": "the header asks for a lean model, and there is none",
        "cost_unbounded": "the header limits the cost of a request whose cost has no bound",
        "cost_limit": "no model is as cheap as the header wants",
        "budget_too_small": "not even a whole budget could pay for it",
    },
    401: {"invalid_api_key": "no key was given, or it is not valid here, or no longer"},
    403: {"override_not_allowed": "a header that chooses the route, where the manifest does not allow that"},
    404: {
        "": "there is nothing at this address",
        "model_not_found": "another model than the one that is served",
        "other_task": "these models do something else",
    },
    405: {"method_not_allowed": "the header allow says which methods are"},
    408: {"body_timeout": "the body took too long to come"},
    413: {"request_too_large": "the body is too long"},
    429: {
        "insufficient_quota": "there is not enough money left in a budget",
        "rate_limit_exceeded": "the key asks faster than it may",
        "queue_full": "too many wait for a place already",
        "queue_timeout": "no place came free in time",
    },
    500: {"": "the router failed", "engine_error": "the engine failed, and says how"},
    502: {
        "bad_gateway": "the engine gave no usable answer",
        "provider_failed": "the external provider failed",
        "provider_refused": "the external provider refused the router's own request",
    },
    503: {
        "engine_unavailable": "the engine cannot be reached, or is left alone for a while",
        "ledger_unavailable": "what the request costs cannot be recorded",
    },
    504: {
        "engine_timeout": "the engine did not answer in time",
        "request_timeout": "the whole took longer than the manifest allows",
    },
}
"""By status: what each ``code`` means; empty is an error without one."""

ALWAYS = {
    "x-leanmodel-request-id": "The request's name in the log: its own x-request-id where that is usable.",
}
ATTRIBUTION = {
    "x-leanmodel-certificate": "What is promised; none where no certificate covers the answer.",
    "x-leanmodel-policy": "Digest of the policy.",
}
SAID = {
    "x-leanmodel-route": "Who answered: lean, large, escalated (lean was asked first) or external.",
    "x-leanmodel-reason": "What decided.",
    "x-leanmodel-revision": "Which revision answered.",
}
MAY_SAY = {
    "x-leanmodel-confidence": "Of the lean answer, or of the prompt where that decided.",
    "x-leanmodel-promise": "suspended, where somebody stands in for the large model; with a second promise also full, "
    "under-pressure, none.",
    "x-leanmodel-pressure": "Why the second promise is in force: budget, concurrency, queue.",
    "x-leanmodel-group": "The group by whose rule it went.",
    "x-leanmodel-scope": "What lay outside of the certificate.",
    "x-leanmodel-alarm": "Which monitors have found the promise broken.",
    "x-leanmodel-sampling": "Sampling parameters that were filled in.",
    "x-leanmodel-cost-usd": "What it cost; a stream says it in its usage chunk.",
    "x-leanmodel-cost-basis": "How that was found.",
    "x-leanmodel-budget-left-usd": "What the tightest budget leaves.",
    "x-leanmodel-budget-window": "Which budget that is, and when its window ends.",
}
ASKED = {
    "x-session-id": "Names the conversation; else it is told by its first messages.",
    "x-leanmodel-group": "Kind of request, for a policy with a promise for each group.",
    "x-request-id": "Name for log and headers: 1 to 128 of A-Z, a-z, 0-9 and ._:-; any other is replaced.",
    "traceparent": "W3C trace context; goes on to the engines.",
    "tracestate": "W3C trace context; goes on to the engines.",
}
"""Headers of a request; those that choose its route are in :mod:`.overrides`."""
