"""What the charts ship and the code decides are one: the definition, rights, settings, metrics, versions."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import tomllib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from house import ROOT
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(ROOT / "tools"))

from chart_files import __main__ as command  # noqa: E402
from chart_files import places, queries, schema, settings, table  # noqa: E402

from leanmodel_operator.cluster.metrics import Metrics  # noqa: E402
from leanmodel_operator.cluster.settings import Settings  # noqa: E402

CHARTS = sorted(path.parent for path in places.CHARTS.glob("*/Chart.yaml"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
TARGET_LABELS = {"namespace", "pod", "leanmodel", "part"}
"""Labels that no exporter gives: the Prometheus operator adds the first two, the chart's PodMonitor the others."""


def test_the_committed_files_are_what_the_code_says() -> None:
    assert [str(path.relative_to(ROOT)) for path in command.stale()] == [], "run `make charts`"


def test_a_file_that_differs_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.rbac, "render", lambda: "rules: none\n")
    assert command.main(["--check"]) == 1
    assert (
        capsys.readouterr().err
        == "charts/leanmodel/files/rbac.yaml is not what the code says; run `make charts`\n"
    )


# ------------------------------------------------------------------ charts and values


@pytest.mark.parametrize("folder", CHARTS, ids=lambda path: path.name)
def test_a_chart_has_the_version_of_the_code(folder: Any) -> None:
    chart = yaml.safe_load((folder / "Chart.yaml").read_text())
    assert (chart["name"], chart["version"], chart["appVersion"]) == (folder.name, VERSION, VERSION)


def test_the_images_are_those_that_the_operator_starts_by_itself() -> None:
    values = yaml.safe_load(places.VALUES.read_text())
    for part in ("compressor", "prover", "server"):
        repository = values["images"][part]["repository"]
        assert getattr(Settings(), f"{part}_image") == f"{repository}:{VERSION}", part


def test_every_setting_is_a_value_or_known_to_the_chart() -> None:
    every = {item.name for item in dataclasses.fields(Settings)}
    assert every >= settings.KNOWN_TO_THE_CHART
    values = yaml.safe_load(places.VALUES.read_text())["settings"]
    assert {settings.key(name) for name in every - settings.KNOWN_TO_THE_CHART} == set(values)
    for item in settings.fields():
        assert values[settings.key(item.name)] == item.default, item.name


@pytest.mark.parametrize("folder", CHARTS, ids=lambda path: path.name)
def test_every_value_is_explained(folder: Any) -> None:
    found = table.values((folder / "values.yaml").read_text())
    assert len(found) > 2
    explained = {value.path for value in found if value.words}
    # `enabled` of a budget or a monitor may be explained once, by the branch that it switches.
    assert [v.path for v in found if v.path not in explained and v.default is not None] == []


def test_the_schema_knows_every_value_and_no_other() -> None:
    values = yaml.safe_load(places.VALUES.read_text())
    assert dict(_differences(values, schema.build(), "")) == {}


def _differences(values: dict[str, Any], part: dict[str, Any], above: str) -> Iterator[tuple[str, str]]:
    known = part["properties"]
    # Read by charts above this one, and by nothing here.
    only_above = {"enabled"} if not above else set()
    for name in set(values) ^ (set(known) - only_above):
        if not above.startswith("resources."):
            yield f"{above}{name}", "only in the values" if name in values else "only in the schema"
    for name in set(values) & set(known):
        if "properties" in known[name] and name != "resources":
            yield from _differences(values[name], known[name], f"{above}{name}.")


def test_the_markers_are_asked_for_when_they_are_gone() -> None:
    with pytest.raises(ValueError, match="put both lines back"):
        settings.with_block("settings: {}\n")
    with pytest.raises(ValueError, match="put both lines back"):
        table.with_table("# A chart\n", "a: 1\n")


def test_a_table_takes_the_words_right_above_a_value() -> None:
    text = "# Not of a.\n\n# Of a,\n# in two lines.\na: 1\nb:\n  # Of c | d.\n  c: [x]\n"
    assert table.values(text) == [
        table.Value("a", "1", "Of a, in two lines."),
        table.Value("b.c", '["x"]', "Of c | d."),
    ]
    assert '| `b.c` | `["x"]` | Of c \\| d. |' in table.render(text)


# ------------------------------------------------------------------ queries and what is exposed


def _operator() -> dict[str, set[str]]:
    """The operator's metrics, as its registry exposes them once each has happened: sample names to labels."""
    metrics = Metrics()
    metrics.turned("ok", 0.1)
    metrics.called("apply", 200)
    metrics.conditions.saw(("ml", "support"), {"conditions": [{"type": "Ready", "status": "True"}]})
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _router() -> dict[str, set[str]]:
    """The router's metrics, as Ray's own objects describe them; tests/serving holds these against Ray's exposition."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, of its pydantic models
        from leanmodel_serving.metrics import PREFIX, PutBy, ray_meters

        objects = ray_meters()._objects
    found: dict[str, set[str]] = {}
    for held in objects.values():
        made = held.rays if isinstance(held, PutBy) else held
        name, labels = f"{PREFIX}{made.info['name']}", set(made.info["tag_keys"])
        if type(made).__name__ == "Histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[f"{name}_total" if type(made).__name__ == "Counter" else name] = labels
    return found


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Every sample name that a registry of ours exposes, with its labels."""
    return _operator() | _router()


EVERY = [*queries.dashboard_queries(), *queries.variable_queries(), *queries.rule_queries()]


@pytest.mark.parametrize("query", EVERY, ids=lambda query: query.where)
def test_a_query_asks_for_metrics_and_labels_that_there_are(
    query: queries.Query, exposed: dict[str, set[str]]
) -> None:
    found = queries.uses(query.text)
    assert found
    for use in found:
        assert use.name in exposed
        assert use.labels - TARGET_LABELS <= exposed[use.name], use


def test_every_metric_of_ours_is_looked_at(exposed: dict[str, set[str]]) -> None:
    looked_at = {use.name for query in EVERY for use in queries.uses(query.text)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in looked_at}
    every = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed if not name.endswith("_created")}
    # The gauge of saving is the difference of two counters that are looked at; the tokens are counted exactly beside
    # their histogram.
    assert every - families == {"ray_leanmodel_saving_usd", "ray_gen_ai_client_token_usage"}


DOCUMENT = (ROOT / "docs" / "install.md").read_text()


def test_the_document_lists_the_operator_s_metrics_with_their_labels() -> None:
    told = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(
            r"^\| `(leanmodel_operator_\w+)` \| \w+ \| (.*?) \|", DOCUMENT, re.MULTILINE
        )
    }
    exposed = {
        re.sub(r"_(bucket|sum|count)$", "", name): labels - {"le"}
        for name, labels in _operator().items()
        if not name.endswith(("_created", "_sum", "_count"))
    }
    assert told == exposed


def test_the_document_lists_the_alerts_with_their_patience() -> None:
    rows = re.findall(r"^\| `(LeanModel\w+)` \| .+? \| (\d+) (min|h) \|$", DOCUMENT, re.MULTILINE)
    assert [(name, f"{count}{unit[0]}") for name, count, unit in rows] == [
        (rule["alert"], rule["for"]) for rule in queries.rules()
    ]


def test_legends_name_labels_that_the_query_keeps() -> None:
    board = json.loads(places.DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = {label for use in queries.uses(target["expr"]) for label in use.labels}
            assert named <= kept, (panel["title"], target["legendFormat"])


def test_annotations_name_labels_that_the_rule_keeps() -> None:
    for rule in queries.rules():
        kept = {label for use in queries.uses(rule["expr"]) for label in use.labels}
        named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert named <= kept, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("warning", "critical")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('sum by (a) (rate(m_total{b="x"}[5m]))', [("m_total", {"a", "b"}, 'm_total{b="x"}')]),
        ("x / (2 * y)", [("x", set(), "x{}"), ("y", set(), "y{}")]),
        ("max by (a) (max_over_time(m{c!~\"d\"}[1h:5m]))", [("m", {"a", "c"}, 'm{c!~"d"}')]),
    ],
)  # fmt: skip
def test_queries_are_read(text: str, found: list[tuple[str, set[str], str]]) -> None:
    assert [(use.name, set(use.labels), use.selector) for use in queries.uses(text)] == found


@pytest.mark.parametrize("text", ["sum(", "rate(m[$interval])", '{a="b"}'])
def test_what_is_no_query_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        queries.uses(text)
