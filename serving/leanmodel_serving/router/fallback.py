"""When the large model is down: who may answer in its place, without a promise. Pure."""

from __future__ import annotations

from .ask import Ask
from .cost import Tariff
from .errors import ApiError
from .outside import PATHS
from .overrides import Wishes, most_cost
from .route import Route, guessed_tokens
from .snapshot import Snapshot
from .wire import Reply

_REQUESTS_FAULT = frozenset((400, 413, 422, 429))
"""A provider's refusals that are about the request, or about how many there are; others are about our own settings."""


def may_stand_in(state: Snapshot, ask: Ask, route: Route) -> bool:
    """Return whether the lean model may answer a request that the large one could not.

    Only a lean model that was proven and has traffic may; never against the request's own wish, or past a hard rule:
    tools, images and more than its context it may not be able to do at all.

    Args:
        route: where the request was sent.
    """
    lean = state.settings.lean
    # One that has traffic under pressure alone is proven, too.
    proven = any(one is not None and one.asks_lean for one in (state.decider, state.relaxed))
    if lean is None or not proven or route.reason == "override":
        return False
    most = lean.max_model_length
    return not (ask.tools or ask.images or (most is not None and guessed_tokens(ask, route.fill) > most))


def kept_inside(state: Snapshot, ask: Ask, route: Route, wishes: Wishes) -> str:
    """Return why a request must not go to the external provider, by the settings it began with; empty when it may.

    These are the hard rules. That it may is no permission: :class:`.outside.Door` asks for that anew when it sends.
    """
    access = state.settings.external
    if access is None or access.permission != "Allowed":
        return "forbidden"
    provider = access.provider
    if ask.endpoint not in PATHS:
        return "endpoint"
    if wishes.route is not None:
        return "override"
    if ask.tools and "Tools" not in provider.accepts:
        return "tools"
    if ask.images and "Images" not in provider.accepts:
        return "images"
    most = provider.max_model_length
    if most is not None and guessed_tokens(ask, route.fill) > most:
        return "context"
    if wishes.max_nano is not None:
        bound = most_cost(ask, route.fill, Tariff.priced(provider.price))
        if bound is None or bound > wishes.max_nano:
            return "cost"
    return ""


def provider_error(reply: Reply) -> ApiError:
    """Return a provider's refusal as an error of ours, with its own words where they are meant for the client.

    What is about the router's own request (a key, an address, a model that is not there) becomes 502: a client that
    got the provider's 401 would look for the fault in its own key.
    """
    said = (reply.content or {}).get("error")
    said = said if isinstance(said, dict) else {}
    headers = {"x-leanmodel-route": "external"}
    if reply.retry_after and len(reply.retry_after) <= 64 and reply.retry_after.isprintable():
        headers["retry-after"] = reply.retry_after
    if reply.status in _REQUESTS_FAULT:
        words = str(
            said.get("message") or f"the external provider refused the request (status {reply.status})"
        )
        kind = "rate_limit_error" if reply.status == 429 else "invalid_request_error"
        code, param = said.get("code"), said.get("param")
        return ApiError(
            reply.status, words[:1000], str(said.get("type") or kind), str(code) if code else None,
            str(param) if param else None, retry_after=1 if reply.status == 429 else None, headers=headers,
        )  # fmt: skip
    if reply.status >= 500:
        words, code = "the external provider failed", "provider_failed"
    else:
        words = "the external provider refused the router's request: see spec.routing.fallback.external"
        code = "provider_refused"
    return ApiError(
        502, f"{words} (status {reply.status})", "api_error", code, retry_after=5, headers=headers
    )
