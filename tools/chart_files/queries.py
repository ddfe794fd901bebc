"""Which metrics and labels the dashboard and the alert rules ask for, read with a parser of PromQL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
import yaml

from . import places

VARIABLES = {
    "$__rate_interval": "5m", "$__range": "6h", "$namespace": ".*", "$leanmodel": ".*",
}  # fmt: skip
"""What stands for Grafana's variables where a query is read or run elsewhere."""


@dataclass(frozen=True)
class Query:
    """A query: where it stands, and its text."""

    where: str
    text: str


@dataclass(frozen=True)
class Use:
    """A metric that a query asks for.

    Attributes:
        name: of the metric.
        labels: that are asked of it: by matchers, and by every grouping around it.
        matchers: as written.
    """

    name: str
    labels: frozenset[str]
    matchers: str

    @property
    def selector(self) -> str:
        """The metric with its matchers, as a query of its own."""
        return f"{self.name}{self.matchers}"


def filled(text: str, **instead: str) -> str:
    """Return a query with values for Grafana's variables; the keywords replace some of the usual ones.

    Raises:
        ValueError: a variable is none of those that are known.
    """
    values = VARIABLES | {f"${name}": value for name, value in instead.items()}
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(name, values[name])
    if "$" in text:
        raise ValueError(f"a query has a variable that is none of {', '.join(VARIABLES)}: {text}")
    return text


def dashboard_queries() -> list[Query]:
    """Return the queries of the committed dashboard's panels."""
    board = json.loads(places.DASHBOARD.read_text())
    found = []
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            found.append(Query(f"{panel['title']} {target['refId']}", target["expr"]))
    return found


def variable_queries() -> list[Query]:
    """Return the series that the dashboard's variables are filled from, each with the label that is wanted."""
    board = json.loads(places.DASHBOARD.read_text())
    found = []
    for variable in board["templating"]["list"]:
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", str(variable.get("query", "")))
        if match:
            found.append(Query(variable["name"], f"group by ({match[2]}) ({match[1]})"))
    return found


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    groups = yaml.safe_load(places.RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def rule_queries() -> list[Query]:
    """Return the queries of the alert rules."""
    return [Query(rule["alert"], rule["expr"]) for rule in rules()]


def uses(text: str) -> list[Use]:
    """Return the metrics that a query asks for.

    Raises:
        ValueError: the query cannot be parsed.
    """
    return list(_uses(promql_parser.parse(filled(text)), frozenset()))


def _uses(node: Any, labels: frozenset[str]) -> Iterator[Use]:
    if isinstance(node, promql_parser.VectorSelector):
        if node.name is None:
            raise ValueError(f"a query names no metric: {node.prettify()}")
        own = {matcher.name for matcher in node.matchers.matchers}
        text = str(node.matchers)
        yield Use(node.name, labels | own, text if text.startswith("{") else f"{{{text}}}")
    elif isinstance(node, promql_parser.MatrixSelector):
        yield from _uses(node.vector_selector, labels)
    elif isinstance(node, promql_parser.AggregateExpr):
        grouped = set(node.modifier.labels) if node.modifier is not None else set()
        # What an inner grouping drops, an outer one cannot ask of the metric; ours never do that.
        yield from _uses(node.expr, labels | grouped)
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from _uses(node.lhs, labels)
        yield from _uses(node.rhs, labels)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _uses(argument, labels)
    elif isinstance(node, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
        yield from _uses(node.expr, labels)
