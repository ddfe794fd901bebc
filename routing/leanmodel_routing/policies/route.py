"""What a policy does with a table of records: the same arithmetic as the router's, on columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanmodel_api.policy import Policy
from leanmodel_api.routing_policy import RoutingPolicy, RuleKind
from leanmodel_routing.policies.ways import combine, tried
from leanmodel_routing.predictors.fit import table_confidences
from leanmodel_routing.table import Floats, Mask, Table


@dataclass(frozen=True)
class RoutedTable:
    """Columns [n] of a routed table.

    `scores`: what is held against the threshold, None without a predictor. `confidence`: the calibrated
    confidence among them (of the answer where it is read, else of the prompt). `accepted`: keeps the lean answer.
    `asked`: the lean model is called. `direct`: scores are known before any call.
    """

    scores: Floats | None
    confidence: Floats | None
    accepted: Mask
    asked: Mask
    direct: bool


def route_table(policy: Policy, table: Table) -> RoutedTable:
    """Route every record of a table; a record of a group that has a rule by that rule."""
    after = None if policy.predictor is None else table_confidences(policy.predictor, table)
    routing = policy if isinstance(policy, RoutingPolicy) else None
    before = None
    if routing is not None and routing.before is not None:
        before = table_confidences(routing.before, table)
    direct = before is not None and after is None
    scores = None if before is None and after is None else combine(before, _cut(routing), after, len(table))
    accept = accepted(policy, scores, len(table))
    asked = _asked(policy.kind, scores, accept).copy()
    for name, rule in {} if routing is None else routing.groups.items():
        rows = table.groups.get(name)
        if rows is None:
            continue
        threshold = rule.ask_at if rule.kind == "predictive" else rule.threshold
        theirs = None if scores is None else scores[rows]
        accept[rows] = _keeps(rule.kind, threshold, theirs, len(rows))
        asked[rows] = _asked(rule.kind, theirs, accept[rows])
    return RoutedTable(scores, before if direct else after, accept, asked, direct)


def accepted(policy: Policy, scores: Floats | None, n: int) -> Mask:
    """Which requests keep the lean answer by the policy's own rule, [n]."""
    threshold = policy.threshold
    if isinstance(policy, RoutingPolicy) and policy.kind == "predictive":
        threshold = policy.ask_at
    return _keeps(policy.kind, threshold, scores, n)


def _keeps(kind: RuleKind, threshold: float, scores: Floats | None, n: int) -> Mask:
    if kind == "all-lean":
        return np.ones(n, dtype=np.bool_)
    if kind == "all-large" or scores is None:
        return np.zeros(n, dtype=np.bool_)
    found: Mask = scores >= threshold
    return found


def _asked(kind: RuleKind, scores: Floats | None, accept: Mask) -> Mask:
    if kind in ("all-large", "all-lean") or scores is None:
        return accept
    return tried("predictive" if kind == "predictive" else "combined", scores, accept)


def _cut(policy: RoutingPolicy | None) -> float:
    return 0.0 if policy is None else policy.ask_at
