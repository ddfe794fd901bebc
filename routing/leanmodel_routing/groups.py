"""A promise for each group: its own walk on its own records, all of them together wrong with chance ≤ risk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from leanmodel_api.policy import Certificate, PartSizes
from leanmodel_api.routing_policy import GroupRule
from leanmodel_routing import figures
from leanmodel_routing.calibration import Certified, Terms, certify_walk
from leanmodel_routing.cases import Decision, Spend
from leanmodel_routing.policies.combined import behind_the_cut
from leanmodel_routing.policies.ways import Way
from leanmodel_routing.table import Floats, Ints, Table
from leanmodel_routing.walk import Walk, plan_walk

FEWEST_FIT = 20
"""Fit records of a group below which its thresholds are those of all groups together."""


@dataclass(frozen=True)
class Plan:
    """Which groups are tested, and at which share of the risk; `small`: records still needed by the others."""

    tested: tuple[str, ...]
    risk: float
    small: dict[str, int]


def plan_groups(certify: Table, retain: float, risk: float) -> Plan:
    """Share the risk over the groups that have records enough to be certified at all (Bonferroni).

    A group that could not pass even with no harm in it is not tested and takes no share. That is decided by the
    sizes of the groups alone, which say nothing of their losses.
    """
    sizes = {name: len(rows) for name, rows in certify.groups.items()}
    ranked = sorted(sizes, key=lambda name: (-sizes[name], name))
    tested = 0
    while tested < len(ranked) and sizes[ranked[tested]] >= fewest(retain, risk / (tested + 1)):
        tested += 1
    least = fewest(retain, risk / (tested + 1))
    return Plan(
        tuple(sorted(ranked[:tested])),
        risk / max(tested, 1),
        {name: least - sizes[name] for name in sorted(ranked[tested:])},
    )


def fewest(retain: float, risk: float) -> int:
    """Records without a single harm that show the promise: retain^n ≤ risk; 2 where nothing may be lost."""
    return 2 if retain >= 1.0 else max(1, math.ceil(math.log(risk) / math.log(retain)))


@dataclass(frozen=True)
class WalkTaken:
    """A walk that was taken, on which records (scores [n]), and what it has shown."""

    walk: Walk
    part: Table
    scores: Floats
    sizes: PartSizes
    found: Certified


def group_rules(
    way: Way,
    plan: Plan,
    fit: Table,
    certify: Table,
    report: Table,
    scores: Floats,
    terms: Terms,
    spend: Spend,
) -> tuple[dict[str, GroupRule], dict[str, WalkTaken]]:
    """A rule for every group of the certify part (scores [n]), and how each was tested; small ones stay all-large."""
    fitted, crossed = way.scores(fit), way.crossed(len(fit))
    found: dict[str, GroupRule] = {}
    tested: dict[str, WalkTaken] = {}
    for name in sorted((*plan.tested, *plan.small)):
        rows, learnt = _rows(certify, name), _rows(fit, name)
        part = certify.take(rows)
        sizes = PartSizes(fit=len(learnt), certify=len(rows), report=len(_rows(report, name)))
        if name in plan.small:
            found[name] = _too_small(name, plan.small[name], part, way, terms, sizes)
            continue
        walk = _walk(way, fit.take(learnt), fitted[learnt], crossed[learnt], terms.retain)
        shown = certify_walk(
            walk, way.method, part, scores[rows], replace(terms, risk=plan.risk), sizes, spend
        )
        tested[name] = WalkTaken(walk, part, scores[rows], sizes, shown)
        found[name] = group_rule(way, walk, shown.decision, shown.certificate)
    return found, tested


def joint_certificate(
    rules: Mapping[str, GroupRule],
    small: Mapping[str, int],
    risks: int,
    way: Way,
    certify: Table,
    terms: Terms,
    sizes: PartSizes,
) -> Certificate:
    """All groups' certificates as one: each certified group keeps the promise, wrong with chance ≤ risk for all.

    Where every group keeps it, so does the mean over all requests. Without any group, nothing is certified.
    `small`: records still needed by the groups that were not tested. `risks`: how many groups share the risk.
    """
    kept = [name for name, rule in rules.items() if rule.certificate.certified]
    worst = max((rules[name].certificate.p_value for name in kept), default=1.0)
    few = bool(small) and not kept
    message = (
        f"{len(kept)} of {len(rules)} groups are certified, each to keep {100 * terms.retain:.4g}% of the large "
        f"model's quality in it, all of them at confidence {terms.confidence:.4g}; the others go to the large model"
    )
    return Certificate(
        retain=terms.retain,
        confidence=terms.confidence,
        method=way.method,
        n=len(certify),
        p_value=min(1.0, worst * max(1, risks)),
        certified=bool(kept),
        outcome="cascade-certified" if kept else ("too-few-records" if few else "promise-not-shown"),
        message=message,
        looks=terms.looks,
        parts=sizes,
        needed=min(small.values()) if few else None,
        quality_large=min(figures.quality_of(certify, certify.large), 1.0),
    )


def group_rule(way: Way, walk: Walk, decision: Decision, certificate: Certificate) -> GroupRule:
    """The rule of a decision; its large share is filled in from the report part later."""
    step = 0.0 if decision.step is None else float(walk.thresholds[decision.step])
    pair = decision.kind == "cascade"
    direct = way.strategy == "predictive"
    return GroupRule(
        kind=way.strategy if pair and way.strategy != "fixed" else decision.kind,
        ask_at=step if pair and direct else way.ask_at,
        threshold={"all-large": 1.0, "all-lean": 0.0}.get(decision.kind, 0.0 if direct else step),
        certificate=certificate,
        expected_large_share=1.0 if decision.kind == "all-large" else 0.0,
    )


def _walk(way: Way, fit: Table, scores: Floats, crossed: Floats, retain: float) -> Walk:
    """The group's own walk from its fit records; the common one where they are too few to plan by."""
    if len(fit) < FEWEST_FIT:
        return way.walk
    if way.strategy == "fixed":
        return replace(way.walk, fit=fit, crossed=crossed)
    walk = plan_walk(fit, scores, crossed, retain)
    if way.strategy == "combined":
        return behind_the_cut(walk) or way.walk
    return walk


def _too_small(name: str, needed: int, part: Table, way: Way, terms: Terms, sizes: PartSizes) -> GroupRule:
    in_all = math.ceil(needed * (sizes.fit + sizes.certify + sizes.report) / sizes.certify)
    message = (
        f"{len(part)} certify records of group {name!r} are too few to show that {100 * terms.retain:.4g}% is kept: "
        f"at least {needed} more are needed (about {in_all} more over the three parts); until then its requests go "
        "to the large model"
    )
    certificate = Certificate(
        retain=terms.retain,
        confidence=terms.confidence,
        method=way.method,
        n=len(part),
        p_value=1.0,
        certified=False,
        outcome="too-few-records",
        message=message,
        looks=terms.looks,
        parts=sizes,
        needed=needed,
        quality_large=min(figures.quality_of(part, part.large), 1.0),
    )
    return GroupRule(
        kind="all-large", ask_at=way.ask_at, threshold=1.0, certificate=certificate, expected_large_share=1.0
    )


def _rows(table: Table, name: str) -> Ints:
    return table.groups.get(name, np.zeros(0, dtype=np.int64))
