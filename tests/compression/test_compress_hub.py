"""A Job whose model lies at a hub: it is downloaded, and nothing is asked once the work begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Process, lean_plan, plan_of, run_plan
from hub_server import COMMIT, serving

from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression


def test_a_model_at_a_hub_is_fetched_and_the_steps_ask_for_nothing(
    store: Store, data_file: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = run_plan(plan_of(source={"uri": f"file:{model_folder}"}), store)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    files = {path.name: path.read_bytes() for path in model_folder.iterdir()}
    with serving(files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        job = Process(plan_of(source={"uri": "hf://org/tiny"}), tmp_path / "store", tmp_path / "large")
        job.follow()
        made = job.made()
        assert made.artifact == local.artifact
        asked = [path for path in hub.asked if path.endswith("/model.safetensors")]
        assert asked and all(COMMIT in path for path in asked)
        before = list(hub.asked)
        lean = Process(
            lean_plan(made, data_file, [{"type": "Prune", "keepLayers": 3}]),
            tmp_path / "store",
            tmp_path / "lean",
        )
        lean.follow()
        lean.made()
        assert hub.asked == before


def test_a_hub_that_is_switched_off_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    job = Process(plan_of(source={"uri": "hf://org/tiny"}), tmp_path / "store", tmp_path / "large")
    job.follow()
    assert job.process.returncode == 2
    said = job.errors.read_text()
    assert "spec.large.source.uri" in said and "HF_HUB_OFFLINE" in said
