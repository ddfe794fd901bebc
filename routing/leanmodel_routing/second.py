"""A second, lower promise, certified on the same certify part: further along the walk that the first one took.

Both certificates are right at once with the stated confidence. Each walk is a fixed sequence (see `certify`) at half of
the risk, so the chance that the first certifies a step that breaks its promise is at most a half of the risk, and so is
that of the second: Bonferroni over two. One sequence over both at the whole risk would be no better: it must fix
beforehand where the second takes over, and ends for both where one fails.

What the first has certified the second has for nothing. At one threshold a lower promise loses less on every request,
so where it is broken the higher one is broken too: a certified step of the first can break the second only where the
first is wrong already. So the second goes on where the first has stopped, which also makes sure that it is never the
stricter of the two. That holds where the second's order is fixed before the certify part is seen: it is the walk's, from
the later of the two steps at which the fit part would have either begin. Whichever of these steps is the first to break
the lower promise, the second cannot come past it without rejecting it at half of the risk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from leanmodel_api.policy import Certificate, PartSizes
from leanmodel_api.routing_policy import GroupRule, SecondPoint
from leanmodel_routing.calibration import Certified, Terms, certify_walk
from leanmodel_routing.cases import Spend
from leanmodel_routing.groups import WalkTaken, group_rule, joint_certificate
from leanmodel_routing.policies.ways import Way
from leanmodel_routing.table import Table
from leanmodel_routing.walk import Walk, start_of

PROMISES = 2
"""How many share the risk where a second is asked for."""


@dataclass(frozen=True)
class Lower:
    """What the second promise is, and what it is certified with."""

    way: Way
    terms: Terms
    spend: Spend

    def rule(self, tested: WalkTaken) -> GroupRule:
        """The second rule of one group, or of all requests."""
        walk = second_walk(tested.walk, tested.found, self.terms.retain)
        found = certify_walk(
            walk, self.way.method, tested.part, tested.scores, self.terms, tested.sizes, self.spend,
            before=tested.found,
        )  # fmt: skip
        rule = group_rule(self.way, walk, found.decision, found.certificate)
        if found.decision.step is not None and found.decision.step == tested.found.decision.step:
            return _with_message(rule, _no_cheaper(self.terms.retain))
        if not found.certificate.certified:
            return _with_message(rule, f"{found.certificate.message}; the first promise stays in force")
        return rule


def second_walk(walk: Walk, first: Certified, retain: float) -> Walk:
    """The steps that are left to the second promise: the walk's own, from where the first has stopped."""
    begin = max(walk.start, start_of(walk, retain))
    return replace(walk, start=max([begin, *(step + 1 for step in first.steps)]))


def second_point(lower: Lower, tested: WalkTaken) -> SecondPoint:
    """The second point where one rule is for all requests."""
    rule = lower.rule(tested)
    return SecondPoint(
        kind=rule.kind, ask_at=rule.ask_at, threshold=rule.threshold, certificate=rule.certificate,
        expected_large_share=rule.expected_large_share,
    )  # fmt: skip


def second_groups(
    lower: Lower,
    rules: Mapping[str, GroupRule],
    tested: Mapping[str, WalkTaken],
    small: Mapping[str, int],
    certify: Table,
    sizes: PartSizes,
    risks: int,
) -> SecondPoint:
    """The second point where each group has a rule; a group that was too small for the first stays all-large.

    `rules` and `tested`: of the first promise. `risks`: how many groups share the risk.
    """
    found = {name: lower.rule(tested[name]) if name in tested else rule for name, rule in rules.items()}
    certificate = joint_certificate(found, small, risks, lower.way, certify, lower.terms, sizes)
    return SecondPoint(
        kind="all-large", ask_at=lower.way.ask_at, threshold=1.0, certificate=certificate,
        expected_large_share=1.0, groups=found,
    )  # fmt: skip


def _no_cheaper(retain: float) -> str:
    return (
        f"{100 * retain:.4g}% is kept by the first promise's own rule, and none that is certified for it is cheaper: "
        "under pressure nothing changes"
    )


def _with_message(rule: GroupRule, message: str) -> GroupRule:
    changed: Certificate = rule.certificate.model_copy(update={"message": message})
    return rule.model_copy(update={"certificate": changed})
