"""What a Prometheus saw of the whole run: every query of the dashboard and of the alert rules gave data at some time.

The last file of the run by its name: what it asks about is what the other files did. Queries about what a good
run does not have are named below; tests/serving and tests/apiserver make them and look again.
"""

from __future__ import annotations

import sys

import pytest
from node_support import ROOT
from watching import Watching

sys.path.insert(0, str(ROOT / "tools"))

from chart_files import queries  # noqa: E402

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

ELSEWHERE = (
    "ray_leanmodel_settings_errors_total",
    "ray_leanmodel_pressure",
    "ray_leanmodel_lean_skipped_total",
    "ray_leanmodel_retries_total",
    "ray_leanmodel_external_requests_total",
    'code=~"0|403|5.."',
)
"""Nothing in this run is sure to make them: a settings file that the router refuses, a second promise, calls that the
API server fails, and what becomes of an engine's failures, which Serve hides by keeping requests until it is back."""
INSTEAD = {"__rate_interval": "1m", "__range": "10m"}


def asked() -> dict[str, str]:
    """Return the queries of panels and variables, and the selectors of rules, by where they stand."""
    found = {
        q.where: queries.filled(q.text, **INSTEAD)
        for q in (*queries.dashboard_queries(), *queries.variable_queries())
    }
    for rule in queries.rule_queries():
        found |= {f"{rule.where}: {use.selector}": use.selector for use in queries.uses(rule.text)}
    return found


def test_every_query_gave_data(watching: Watching) -> None:
    empty = {where: text for where, text in asked().items() if not watching.over_the_run(text)}
    print(f"\n{len(asked())} queries, without data: {sorted(empty)}")
    assert {where for where, text in empty.items() if not any(word in text for word in ELSEWHERE)} == set()


def test_the_rules_ran(watching: Watching) -> None:
    found = {rule["name"]: rule["health"] for rule in watching.prometheus.rules()}
    assert set(found) == {rule["alert"] for rule in queries.rules()}
    assert set(found.values()) == {"ok"}
