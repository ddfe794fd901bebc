"""Over budget: whether the lean model may answer alone, and what that still promises. Pure."""

from __future__ import annotations

from dataclasses import replace

from leanmodel_api.routing_policy import RoutingPolicy

from .route import Route, scope_kind
from .snapshot import Snapshot

_HARD = frozenset(("tools", "images", "context"))
"""Kinds of scope that the lean model may not be able to answer in at all."""


def lean_only(state: Snapshot, route: Route) -> Route | None:
    """Return the route by which the lean model answers alone; None where it must not.

    It must not against the request's own wish, nor where it may not be able to (tools, images, context). The promise is
    of the routed pair, so the lean model alone does not keep it, unless the policy sends it everything anyway.

    Args:
        state: settings in force.
        route: where the request would start.
    """
    if state.settings.lean is None or scope_kind(route.scope) in _HARD or route.minimum:
        return None
    if route.reason == "override" and route.way != "lean":
        return None
    alone = replace(route, way="lean", reason="budget", alone=True)
    # No money at all is pressure, where a budget can be: the second promise may be what the lean model keeps alone.
    strain = state.settings.pressure
    spent = "budget" if strain is not None and strain.budget is not None and state.relaxed is not None else ""
    for pressure in (route.pressure, route.pressure or spent):
        if _all_lean(state, route, pressure):
            return replace(alone, pressure=pressure)
    return replace(alone, promised=False)


def _all_lean(state: Snapshot, route: Route, pressure: str) -> bool:
    """Return whether the policy promises what the lean model answers alone, of this request as of every other."""
    decider = state.by(pressure)
    policy = decider.policy if decider is not None else None
    grouped = isinstance(policy, RoutingPolicy) and bool(policy.groups)
    return policy is not None and policy.kind == "all-lean" and not grouped and route.reason == "policy"
