"""The benchmark of the promise: it goes on where it stopped, and fails where a promise is broken too often."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[3] / "benchmarks" / "promise.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("promise_bench", PATH)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PATH.parent))
        spec.loader.exec_module(module)
    return module


def draws(broken, of=500, **more):
    cell = {
        "world": "ties",
        "retain": 0.9,
        "risk": 0.05,
        "certified": True,
        "large": 0.5,
        "plugin_large": 0.4,
    }
    return [
        {**cell, **more, "seed": seed, "broken": seed < broken, "plugin": seed % 2 == 0} for seed in range(of)
    ]


@pytest.mark.parametrize(("broken", "wrong"), [(0, False), (25, False), (40, False), (45, True), (300, True)])
def test_a_promise_broken_more_often_than_its_risk_and_chance_allow_fails(bench, broken, wrong):
    page, failed = bench.report(draws(broken))
    assert failed is wrong
    assert ("too often" in page) is wrong
    assert f"| ties | 0.9 | 5% | 500 | {broken / 500:.1%}" in page


def test_one_wrong_cell_is_not_hidden_by_many_right_ones(bench):
    cells = [
        item for risk in (0.05, 0.1) for retain in (0.9, 0.97) for item in draws(0, retain=retain, risk=risk)
    ]
    other = draws(120, world="blind")
    assert bench.report(cells)[1] is False and bench.report(cells + other)[1] is True


def test_it_goes_on_where_it_stopped_and_ends_in_a_page(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "CHUNK", 2)
    kept = tmp_path / "work.jsonl"
    options = [
        "promise",
        "--draws",
        "4",
        "--worlds",
        "tiny,groups of five",
        "--work",
        str(kept),
        "--processes",
        "1",
    ]
    monkeypatch.setattr("sys.argv", [*options, "--draws", "2"])
    assert bench.main() == 0
    before = kept.read_text()
    assert len(before.splitlines()) == 2 * 2 * 4
    monkeypatch.setattr("sys.argv", options)
    assert bench.main() == 0
    after = kept.read_text()
    assert after.startswith(before) and len(after.splitlines()) == 4 * 2 * 4
    page = capsys.readouterr().out
    assert page.count("| tiny |") == 2 * 4 and "tiny** (150)" in page
    grouped = [json.loads(line) for line in after.splitlines() if '"groups of five"' in line]
    assert any(item["certified"] for item in grouped), "the large group has records enough"
    assert all(item["large"] > 0.4 for item in grouped), "a group of five goes to the large model"
