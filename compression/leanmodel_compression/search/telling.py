"""What a search tells of its candidates: each one's line of the frontier, and the error where none passes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from leanmodel_api.base import size
from leanmodel_api.errors import Issue
from leanmodel_api.figure import Estimate
from leanmodel_api.plan import CompressResult
from leanmodel_api.search import Tried

from . import speed
from .budgets import Budgets
from .candidates import Candidate
from .halving import SHARES, Course
from .planning import FIELD
from .speed import Speed


@dataclass
class Seen:
    """What is known of a candidate by now.

    Attributes:
        made: the artifact of its last rung; None where it was not made.
        speed: None where no budget asks, or it was not measured.
        quality: on its last rung.
        kept: of the large model's quality, likewise.
        seconds: that its steps took.
        note: why it broke, or what is above the budget.
    """

    made: CompressResult | None = None
    speed: Speed | None = None
    quality: Estimate | None = None
    kept: Estimate | None = None
    seconds: float = 0.0
    note: str = ""


def tried(candidate: Candidate, seen: Seen, course: Course, at: int, budgets: Budgets) -> Tried:
    """Return a candidate's line of the frontier.

    Args:
        candidate: the recipe.
        seen: what is known of it.
        course: how the search went.
        at: the candidate's place in it.
        budgets: what prices its speed.
    """
    rung, price = course.last[at], budgets.usd_per_hour
    share = SHARES[rung] if candidate.trains and rung >= 0 else 1.0
    return Tried(
        name=candidate.name,
        steps=list(candidate.steps),
        estimated_bytes=candidate.bytes,
        bytes=seen.made.bytes if seen.made is not None else None,
        rung=rung + 1,
        trained=str(Fraction(share)) if rung >= 0 else "",
        latency_ms=seen.speed.latency_ms if seen.speed else None,
        requests_per_second=seen.speed.requests_per_second if seen.speed else None,
        usd_per_thousand_requests=speed.dollars(seen.speed, price) if seen.speed and price else None,
        memory_bytes=candidate.memory,
        quality=seen.quality,
        retained=seen.kept,
        seconds=round(seen.seconds, 3),
        outcome=course.ends[at],
        note=seen.note,
    )


def none_passes(
    candidates: Sequence[Candidate], seen: Mapping[int, Seen], course: Course, large: Estimate, retain: float, budgets: Budgets,
) -> Issue:  # fmt: skip
    """Return that no candidate keeps both promise and budget, with the nearest to each.

    Args:
        candidates: all of them.
        seen: what is known of those that were asked.
        course: how the search went.
        large: the large model's quality.
        retain: share of it that was wanted.
        budgets: what was allowed.
    """
    over = _over(candidates, seen, course, budgets)
    many = f"none of {len(candidates)} candidates within {size(budgets.bytes)} keeps {retain:g}"
    if course.nearest is None and over:
        words = f"{many} within the whole budget: {over}"
        return Issue(f"{FIELD}.budget", words, "raise it, name a smaller large model, or write lean.steps")
    if course.nearest is None:
        why = next((one.note for one in seen.values() if one.note), "")
        advice = "change training, or write lean.steps"
        return Issue(FIELD, f"{many}: all broke, the first with: {why}", advice)
    near = seen[course.nearest]
    assert near.kept is not None and near.made is not None
    words = (
        f"{many} of the large model's quality ({large.value:.4f} on {large.n} validation rows); the nearest, "
        f"{candidates[course.nearest].name}, keeps {near.kept.value:.4f} ({near.kept.low:.4f} to {near.kept.high:.4f}) with "
        f"{size(near.made.bytes)}"
    )
    advice = "raise the budget, lower promise.retain, or train longer (training.epochs)"
    return Issue(FIELD, f"{words}; {over}" if over else words, advice)


def _over(candidates: Sequence[Candidate], seen: Mapping[int, Seen], course: Course, budgets: Budgets) -> str:
    """Return how many are above what they may take as made or measured, and the nearest of them; empty where none is."""
    out = [at for at, end in enumerate(course.ends) if end == "OverBudget"]
    if not out:
        return ""

    def excess(at: int) -> float:
        one = seen[at]
        return budgets.excess(one.speed) if one.speed else (one.made.bytes if one.made else 0) / budgets.bytes

    near = min(out, key=lambda at: (excess(at), candidates[at].name))
    verb = "is" if len(out) == 1 else "are"
    return f"{len(out)} {verb} above it as measured, the nearest, {candidates[near].name}: {seen[near].note}"
