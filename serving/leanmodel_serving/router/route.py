"""Which way a request goes before anything was generated. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .ask import Ask
from .snapshot import Snapshot


@dataclass(frozen=True)
class Route:
    """Where a request starts.

    Attributes:
        way: large at once; lean without a question; or try the lean model and look at its answer.
        scope: why it goes to the large model although a policy stands, else empty.
        fill: sampling parameters to fill in where the request left them.
    """

    way: Literal["large", "lean", "try"]
    scope: str = ""
    fill: Mapping[str, float | int] = field(default_factory=dict)


def choose(state: Snapshot, ask: Ask) -> Route:
    """Return where a request starts under a state of the router."""
    settings = state.settings
    if settings.lean is None or settings.strategy == "AllLarge":
        return Route("large")
    if settings.strategy == "AllLean":
        return Route("lean")
    decider = state.decider
    if decider is None or decider.kind == "all-large":
        return Route("large")
    # A request that leaves a sampling parameter open gets the one that the certificate is for.
    fill = decider.certified_sampling()
    inside, why = decider.in_scope(ask.facts(fill, settings.lean.artifact, settings.large.artifact))
    if not inside:
        return Route("large", scope=why)
    return Route("lean" if decider.kind == "all-lean" else "try", fill=ask.missing(fill))


_KINDS = (
    "tools images endpoint temperature top_p max_tokens n engine dtype lean_revision large_revision "
    "chat_template_digest messages prompt"
)
SCOPE_KINDS = frozenset(_KINDS.split())


def scope_kind(why: str) -> str:
    """Return the kind of a scope message, for a metric's label: one of a closed set, whatever a request holds."""
    kind = why.partition(":")[0]
    return kind if kind in SCOPE_KINDS else "other"
