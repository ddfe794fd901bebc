"""Which way a request goes before anything was generated: hard rules first, then the policy. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from leanmodel_routing.decide import Decider

from .ask import Ask
from .cost import BYTES_PER_TOKEN
from .overrides import NO_WISHES, Wishes, affordable
from .snapshot import Snapshot

Reason = Literal[
    "fixed", "policy", "scope", "alarm", "conversation", "override", "lean-failing", "large-failing", "budget"
]


@dataclass(frozen=True)
class Route:
    """Where a request starts.

    Attributes:
        way: large at once; lean without a question; or try the lean model and look at its answer.
        reason: what decided; a closed set, for a metric's label.
        scope: what lies outside of the certificate, else empty.
        alarm: names of the monitors that have raised an alarm, else empty.
        fill: sampling parameters to fill in where the request left them.
        score: the prompt's confidence where that decided, as the score-drift monitor counts it.
        minimum: confidence below which the request wants the large model, whatever the policy says.
        promised: whether the policy's promise covers the answer.
        group: whose rule of the policy it goes by; empty where it has none of its own.
        alone: whether nobody but the lean model may be asked: there is no money for the large one.
        pressure: why the policy's second promise is in force for it; empty where the first is.
    """

    way: Literal["large", "lean", "try"]
    reason: Reason = "fixed"
    scope: str = ""
    alarm: str = ""
    fill: Mapping[str, float | int] = field(default_factory=dict)
    score: float | None = None
    minimum: float = 0.0
    promised: bool = True
    group: str = ""
    alone: bool = False
    pressure: str = ""

    @property
    def watched(self) -> bool:
        """Whether the monitors count it: inside the scope, and nothing but the policy decides."""
        return self.reason == "policy" and not self.minimum


def choose(
    state: Snapshot,
    ask: Ask,
    wishes: Wishes = NO_WISHES,
    *,
    pinned: bool = False,
    alarms: Collection[str] = (),
    group: str = "",
    pressure: str = "",
) -> Route:
    """Return where a request starts under a state of the router.

    Args:
        wishes: what its headers ask for, where the manifest allows that.
        pinned: whether its conversation has gone to the large model before.
        alarms: monitors by which the promise is broken.
        group: kind of request that it says it is.
        pressure: why the second promise is in force, if there is one; empty where the first is.

    Raises:
        ApiError: the request's limit of cost cannot be kept.
    """
    pressure = pressure if state.relaxed is not None else ""
    route = replace(_chosen(state, ask, wishes, pinned, alarms, group, state.by(pressure)), pressure=pressure)
    if wishes.max_nano is None:
        return route
    lean = state.lean if state.settings.lean is not None else state.large
    way = affordable(route.way, ask, route.fill, lean, state.large, wishes.max_nano)
    return route if way == route.way else replace(route, way=way, reason="override", promised=way != "lean")


def _chosen(
    state: Snapshot,
    ask: Ask,
    wishes: Wishes,
    pinned: bool,
    alarms: Collection[str],
    group: str,
    decider: Decider | None,
) -> Route:
    settings = state.settings
    if wishes.route == "large" or settings.lean is None:
        return Route("large", "override" if wishes.route == "large" else "fixed")
    if wishes.route == "lean":
        return Route("lean", "override", promised=False)
    if settings.strategy == "AllLarge":
        return Route("large")
    if settings.strategy == "AllLean":
        return Route("lean", promised=False)
    if decider is None or not decider.asks_lean:
        return Route("large", "policy")
    if alarms:
        return Route("large", "alarm", alarm=",".join(sorted(alarms)))
    if pinned:
        return Route("large", "conversation")
    # A request that leaves a sampling parameter open gets the one that the certificate is for.
    fill = decider.certified_sampling()
    inside, why = decider.in_scope(ask.facts(fill, settings.lean.artifact, settings.large.artifact))
    why = why or _too_long(ask, fill, settings.lean.max_model_length)
    if not inside or why:
        return Route("large", "scope", scope=why)
    group = group if decider.knows(group) else ""
    first = decider.first(ask.text() if decider.needs_prompt else None, group)
    missing = ask.missing(fill) if first.route != "large" else {}
    route = Route(
        first.route, "policy", fill=missing, score=first.score, minimum=wishes.min_confidence, group=group
    )
    # Where nothing of the answer is read, the prompt's confidence is all there is to hold against a wish.
    if first.route == "lean" and wishes.min_confidence > (first.score or 0.0):
        return Route("large", "override")
    return route


def _too_long(ask: Ask, fill: Mapping[str, float | int], most: int | None) -> str:
    """Say that a request will not fit into the lean model's context; empty where it may."""
    tokens = guessed_tokens(ask, fill)
    if most is None or tokens <= most:
        return ""
    return f"context: about {tokens} tokens, the lean model takes {most}"


def guessed_tokens(ask: Ask, fill: Mapping[str, float | int]) -> int:
    """Return about how many tokens prompt and answer may be, by their bytes and max_tokens."""
    text, answer = ask.text(), ask.sampling("max_tokens", fill)
    answers = int(answer) if answer is not None and math.isfinite(answer) else 0
    return len((text or "").encode()) // BYTES_PER_TOKEN + answers


_KINDS = (
    "tools images endpoint temperature top_p max_tokens n engine dtype lean_revision large_revision "
    "chat_template_digest messages prompt context response_format"
)
SCOPE_KINDS = frozenset(_KINDS.split())


def scope_kind(why: str) -> str:
    """Return the kind of a scope message, for a metric's label: one of a closed set, whatever a request holds."""
    kind = why.partition(":")[0]
    return kind if kind in SCOPE_KINDS else "other"
