"""`leanmodel estimate`: from a manifest and a configuration without weights to a table, by the real estimators."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanmodel_api.estimate import RunEstimate, StepEstimate, TeacherEstimate
from leanmodel_cli.commands.estimate import asked, duration, lines
from leanmodel_cli.main import main

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quickstart on a folder that holds SmolLM2's configuration and no weights, and too little memory."""
    monkeypatch.setenv("LEANMODEL_HOME", str(tmp_path / "home"))
    document: Any = yaml.safe_load((QUICKSTART / "leanmodel.yaml").read_text())
    document["spec"]["large"]["source"] = {"uri": "file:model"}
    document["spec"]["jobs"] = {"compress": {"memory": "1Gi"}}
    shutil.copytree(QUICKSTART / "data", tmp_path / "data")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(SMOLLM2))
    path = tmp_path / "leanmodel.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_quickstart_is_estimated_without_weights_and_refused_for_want_of_memory(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", "-f", str(manifest), "--json"]) == 3
    said = capsys.readouterr()
    found = RunEstimate.model_validate_json(said.out)
    assert [step.type for step in found.steps] == ["Fetch", "Finetune", "Prune", "Distill", "Quantize"]
    large, lean = found.steps[0], found.steps[-1]
    assert large.parameters == 134_515_008 and large.bytes == 2 * large.parameters
    assert lean.bytes is not None and 0.25 < lean.bytes / large.bytes < 0.35
    assert all(step.seconds > 0 and step.memory_bytes > 2**29 for step in found.steps)
    assert found.memory_limit == 2**30
    assert "refused: spec.jobs.compress.memory" in said.err and "write at least" in said.err


def test_an_estimate_that_breaks_is_no_estimate(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEANMODEL_COMPRESSION_PYTHON", "/bin/false")
    assert main(["estimate", "-f", str(manifest)]) == 1
    assert "the estimate ended with exit code 1" in capsys.readouterr().err


def test_the_table_sums_time_and_disk_and_takes_the_largest_peak() -> None:
    step = StepEstimate(
        role="Large", type="Fetch", field="spec.large.source", parameters=2_000_000, bytes=None,
        memory_bytes=3_000_000, disk_bytes=4_000_000, seconds=50,
    )  # fmt: skip
    other = step.model_copy(update={"memory_bytes": 7_000_000, "bytes": 1_500_000, "role": "Lean"})
    table = lines(RunEstimate(steps=[step, other], memory_limit=10**9, memory_free=10**9, disk_free=10**9))
    assert table[1].split() == ["large", "Fetch", "2.0", "M", "?", "3.0", "MB", "4.0", "MB", "50", "s"]
    assert table[3].split() == ["in", "all", "7.0", "MB", "8.0", "MB", "2", "min"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_times_are_said_in_their_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_a_teacher_would_cost_is_a_line_of_its_own() -> None:
    one = TeacherEstimate(
        field="spec.lean.steps[1]", model="theirs", base_url="https://api.example.com/v1", prompts=96, answered=6, calls=90,
        usd="0.0021", usd_at_most="0.0101", max_calls=500, max_usd="2", spent_calls=7, spent_usd="0.0003",
    )  # fmt: skip
    assert asked(one) == (
        "  teacher: spec.lean.steps[1] asks theirs at https://api.example.com/v1 90 prompts, 6 more are answered already: "
        "about $0.0021, at most $0.0101 (bounds: 500 calls, $2; spent so far: 7 calls, $0.0003)"
    )


def test_calls_and_dollars_of_a_teacher_are_said_before_any_is_asked(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document: Any = yaml.safe_load(manifest.read_text())
    spec = document["spec"]
    spec["teacher"] = {
        # Nobody listens there: an estimate asks nothing.
        "external": {"baseUrl": "http://127.0.0.1:9/v1", "model": "theirs"},
        "price": {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "2"},
        "maxCalls": 50, "maxUSD": "1", "maxTokens": 8,
    }  # fmt: skip
    spec["routing"]["externalProviders"] = "Allowed"
    distill = spec["lean"]["steps"][1]
    distill.pop("maxImbalance")
    distill |= {"answers": "Teacher", "maxExamples": 60}
    manifest.write_text(yaml.safe_dump(document))
    assert main(["estimate", "-f", str(manifest)]) == 3
    said = capsys.readouterr()
    assert "spec.lean.steps[1] asks theirs at http://127.0.0.1:9/v1 60 prompts: about $0.00" in said.out
    assert "(bounds: 50 calls, $1)" in said.out
    assert "refused: spec.teacher.maxCalls: found 50, of which 50 are left, and 60 prompts" in said.err
