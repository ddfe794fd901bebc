"""The report's table of groups: what each kind of request was promised, and what it gets."""

from __future__ import annotations

from leanmodel_api.report import ProveReport

from .html import Content, Raw, table
from .words import percent, quality


def groups(report: ProveReport) -> Raw:
    """Return each group's figures and rule; nothing where the data set names none."""
    evaluation, rules = report.evaluation, getattr(report.policy, "groups", {})
    rows: list[list[Content]] = [
        [
            name, str(found.n), rules[name].kind if name in rules else "all-large", percent(found.large_share),
            quality(found.quality), quality(found.quality_large),
        ]
        for name, found in sorted(evaluation.groups.items())
    ]  # fmt: skip
    if not rows or not rules:
        return Raw("")
    caption = "Each kind of request has a rule of its own; small ones, and those that no row has, go to the large model."
    head = ["Group", "Records", "Rule", "Large share", "Quality", "Large model's"]
    return table(caption, head, rows, frozenset({1, 3, 4, 5}))
