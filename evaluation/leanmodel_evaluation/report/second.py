"""The second promise in the report: what is kept under pressure, and what that saves."""

from __future__ import annotations

from leanmodel_api.report import ProveReport
from leanmodel_api.routing_policy import (
    AnyEvaluation,
    AnyPolicy,
    RoutingEvaluation,
    RoutingPolicy,
    SecondPoint,
)
from leanmodel_routing.second import PROMISES

from ..verdict import sentence
from .html import Content, Raw, definitions, join, tag
from .words import percent, quality


def second_of(policy: AnyPolicy) -> SecondPoint | None:
    """Return the policy's second point; None where none was asked for."""
    return policy.under_pressure if isinstance(policy, RoutingPolicy) else None


def level(policy: AnyPolicy) -> float:
    """Return what a certificate's p-values are held against: the risk, shared over looks and promises."""
    found = policy.certificate
    return (1 - found.confidence) / found.looks / (1 if second_of(policy) is None else PROMISES)


def under_pressure(evaluation: AnyEvaluation) -> list[tuple[str, float, float, float | None]]:
    """Return the second point as a row of the ways to route; nothing where it is not used."""
    found = evaluation.under_pressure if isinstance(evaluation, RoutingEvaluation) else None
    return [] if found is None else [("under pressure", found.large_share, found.quality, found.cost)]


def second_promise(report: ProveReport) -> Raw:
    """Return what is promised under pressure, or why it is not."""
    second, evaluation = second_of(report.policy), report.evaluation
    if second is None:
        return join()
    found = second.certificate
    words = (
        f"Under pressure: the mean {report.policy.scope.metric} is at least {percent(found.retain)} of the large model's. "
        f"That either of the two statements is wrong has a chance of at most {percent(1 - found.confidence)}: each is held "
        "to half of the risk."
        if found.certified
        else f"No certificate of {percent(found.retain)} was given: under pressure nothing changes."
    )
    pairs: list[tuple[str, Content]] = [
        ("Method", f"{found.method}, {found.tested} further thresholds tested, from where the first promise stopped"),
        ("p-value", f"{found.p_value:.3g}, held against {level(report.policy):.3g}"),
    ]  # fmt: skip
    if found.needed:
        pairs.append(("More records needed", f"about {found.needed} in the certify part"))
    figures = evaluation.under_pressure if isinstance(evaluation, RoutingEvaluation) else None
    if figures is not None:
        pairs.append(("Answered by the large model", percent(figures.large_share)))
        pairs.append((f"{report.policy.scope.metric}, on the report part", quality(figures.quality)))
        if figures.label_free is not None:
            pairs.append(("Accepted and different", f"at most {percent(figures.label_free.upper)}"))
    return join(
        tag("h3", "Under pressure"), tag("p", sentence(found.message)), tag("p", words), definitions(pairs)
    )
