"""The alert rules as Prometheus itself reads and runs them; the cases lie beside the rules."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from chart_files import places, queries

TESTS = sorted((places.RULES.parent / "tests").glob("*.yaml"))


def ask(promtool: Path, *words: str | Path) -> str:
    """What promtool says; a failure shows it."""
    done = subprocess.run([promtool, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules(promtool: Path) -> None:
    assert f"{len(queries.rules())} rules found" in ask(promtool, "check", "rules", places.RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(promtool: Path, path: Path) -> None:
    ask(promtool, "test", "rules", path)


def test_every_alert_fires_in_some_case() -> None:
    fired = set()
    for path in TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            fired |= {rule["alertname"] for rule in case.get("alert_rule_test", ()) if rule["exp_alerts"]}
            for check in case.get("promql_expr_test", ()):
                fired |= {word for sample in check["exp_samples"] for word in sample["labels"].split('"')}
    assert {rule["alert"] for rule in queries.rules()} <= fired
