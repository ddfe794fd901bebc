"""The benchmark of compression: its rows are plans that would run, what it keeps survives a kill, and it hides no miss."""

from __future__ import annotations

import sys
import typing
from dataclasses import replace
from pathlib import Path

import pytest
from house import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_api.plan import CompressPlan, CompressResult, StepFigure
from leanmodel_api.report import Estimate
from leanmodel_api.step_rules import order_issues
from leanmodel_api.steps import STEP_TYPES, Heal, Prune, Quantize

sys.path.insert(0, str(ROOT / "benchmarks"))

from compressing import goals, make, measured, page, record, subjects  # noqa: E402
from compressing.kept import Lines  # noqa: E402
from compressing.rows import LARGE, Row, rows  # noqa: E402
from compressing.table import Found, Line  # noqa: E402

RESULTS = ROOT / "docs" / "results"
LIMITS = subjects.Limits(2**32, 1)
DIGEST = "sha256:" + "0" * 64


def plan_of(row: Row) -> CompressPlan:
    start = subjects.start_plan(row.subject, LIMITS)
    large = CompressResult(name="large", role="Large", plan="", artifact=DIGEST, bytes=100)
    return start if row.name == LARGE else subjects.row_plan(row, start, large, Path("valid.jsonl"))


@pytest.mark.parametrize("examples", [None, 8])
def test_every_row_is_a_plan_whose_order_can_work(examples: int | None) -> None:
    made = rows(examples)
    assert len({row.id for row in made}) == len(made)
    for row in made:
        plan = plan_of(row)
        assert order_issues(plan.steps, "steps") == [], row.id
        assert not row.like or any(other.id == f"{row.subject}/{row.like}" for other in made), row.id
    assert len({plan_of(row).key() for row in made}) == len(made)


def test_every_kind_of_step_and_every_algorithm_has_a_row() -> None:
    steps = [step for row in rows() for step in plan_of(row).steps]
    assert {type(step).__name__ for step in steps} == set(STEP_TYPES)

    def values(kind: type, name: str) -> set[str]:
        return set(typing.get_args(typing.get_type_hints(kind)[name]))

    assert {step.method for step in steps if isinstance(step, Prune)} == values(Prune, "method")
    assert {step.algorithm for step in steps if isinstance(step, Quantize)} == values(Quantize, "algorithm")
    assert {step.method for step in steps if isinstance(step, Heal)} == values(Heal, "method")


@given(st.integers(0, 200))
@settings(max_examples=30)
def test_a_torn_line_is_forgotten_and_swallows_nothing(tmp_path_factory, cut: int) -> None:
    path = tmp_path_factory.mktemp("kept") / "rows.jsonl"
    Lines(path).add({"row": "a", "key": "1", "value": 1})
    whole = len(path.read_bytes())
    Lines(path).add({"row": "b", "key": "1", "value": "x" * 100})
    path.write_bytes(path.read_bytes()[: whole + cut])
    found = Lines(path)
    found.add({"row": "c", "key": "1"})
    again = Lines(path)
    assert again.find("a", "1") == {"row": "a", "key": "1", "value": 1}
    assert again.find("c", "1") == {"row": "c", "key": "1"}
    assert (again.find("b", "1") is not None) == (
        path.read_text().count("xx") > 0 and found.find("b", "1") is not None
    )
    assert again.find("a", "2") is None


def line(
    name: str, nats: float, peak: float = 100.0, estimate: int = 110, foretold: int | None = None
) -> Line:
    row = next(row for row in rows() if row.id == name)
    step = StepFigure(
        type="Heal", seconds=2, figures={"peakAnonymousBytes": peak}, estimated_memory_bytes=estimate
    )
    made = CompressResult(
        name="x", role="Lean", plan="", artifact=DIGEST, bytes=50, parameters=80, steps=[step]
    )
    judged, large = ({"nats": [value * 511] * 4, "tokens": [511] * 4} for value in (nats, 3.0))
    told = {"judged": judged, "load": 0.0, "date": "2026-01-02", "foretold": foretold}
    return measured.line_of(row, made, told, large, None)


def found(**nats: float) -> Found:
    made = Found(rows())
    for name, value in nats.items():
        made.lines[f"words/{name}"] = line(f"words/{name}", value)
    return made


def test_a_goal_is_met_missed_or_not_yet_run() -> None:
    def said(value: float | None) -> goals.Goal:
        known = {"large": 3.0} if value is None else {"large": 3.0, "qat w4a16": value}
        return goals.goals(found(**known))[0]

    assert said(None).met is None and "not yet run" in said(None).line()
    assert said(3.05).met is True and "| met |" in said(3.05).line()
    assert said(3.2).met is False and "missed" in said(3.2).line()


def test_estimates_are_held_to_15_per_cent_either_way() -> None:
    made = found(**{"rtn w4a16": 3.0})
    assert goals.of_estimates(made).met is True
    for estimate in (84, 116):
        made.lines["words/rtn w8a8"] = line("words/rtn w8a8", 3.0, estimate=estimate)
        assert goals.of_estimates(made).met is False
        assert "words/rtn w8a8" in goals.of_estimates(made).figure
    made.lines["words/rtn w8a8"] = line("words/rtn w8a8", 3.0, estimate=116, foretold=105)
    assert goals.of_estimates(made).met is True, "what is said today counts"


def test_the_page_names_what_failed_and_what_is_missing() -> None:
    made = found(**{"large": 3.0, "rtn w4a16": 3.1})
    made.errors["words/gptq w4a16"] = "error: too little memory"
    text = page.page(made, ["words/rtn w4a16"], None)
    assert "Failed: gptq w4a16 (error: too little memory)" in text
    missing = text.partition("Not yet run: ")[2].partition("\n")[0]
    assert "half depth healed" in missing and "rtn w4a16;" not in missing.replace(
        "trained then rtn w4a16", ""
    )
    assert "20.1 (20.1–20.1)" in text and "no figure here counts" not in text
    assert "no figure here counts" in page.page(made, [], 8)


def test_another_machine_goes_on_with_what_was_recorded(tmp_path: Path) -> None:
    made, path, asked = found(**{"large": 3.0, "rtn w4a16": 3.1}), tmp_path / "record.jsonl", ["1", 40, None]
    made.speeds["words/rtn w4a16"] = Estimate(value=0.8, low=0.7, high=0.9)
    made.rates["words/large"] = 300.0
    made.baselines["sms"] = {"always-ham": {"F1": Estimate(value=0, low=0, high=0.1)}}
    made.direct["words/gptq w4a16"] = {"row": "gptq w4a16", "seconds_ratio": 1.0}
    record.write(path, made, asked)
    assert record.read(path, made.rows, asked) == made
    assert not record.read(path, made.rows, ["1", 41, None]).lines, "judged otherwise"
    changed = [replace(row, steps=row.steps * 2) if row.id == "words/rtn w4a16" else row for row in made.rows]
    again = record.read(path, changed, asked)
    assert set(again.lines) == {"words/large"} and not again.speeds, "made otherwise"


def test_the_page_says_what_its_record_says() -> None:
    asked = [make.JUDGED, subjects.WINDOWS, None]
    known = record.read(RESULTS / "compression.jsonl", rows(), asked)
    told = (RESULTS / "compression.md").read_text()
    assert known.lines and all(page.line_of(known, one) in told for one in known.lines.values())


def test_windows_are_of_the_published_text_and_the_test_part_teaches_nothing() -> None:
    plan = plan_of(next(row for row in rows() if row.id == "words/trained"))
    assert [data.source.uri for data in plan.data_sets] == ["file:valid.jsonl"]
    texts = [(subjects.WIKITEXT / f"{part}.txt").read_text().splitlines() for part in ("valid", "test")]
    long = [{text for text in part if len(text) > 200} for part in texts]
    assert len(long[0]) > 1000 and not long[0] & long[1]
