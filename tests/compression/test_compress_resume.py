"""kill -9 at random moments: the final bits are the same, finished work is not repeated."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from conftest import EVERY_LINE, Process, data_set, lean_plan, plan_of, run_plan

from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.progress import ProgressLine
from leanmodel_compression import checkpoint
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.slow, pytest.mark.timeout(900)]

INTERVAL = 10
STEPS = [
    {"type": "Prune", "keepLayers": 3},
    {"type": "Distill", "learningRate": "0.005", "epochs": "40", "checkpointSteps": INTERVAL},
    {"type": "Quantize", "scheme": "W4A16", "algorithm": "GPTQ", "samples": 96},
]


def killed_after(process: Process, seconds: float) -> None:
    """Kill the process so long after its first step began, whatever it is doing then."""
    process.follow(lambda line: line.state == "started")
    timer = threading.Timer(seconds, os.kill, (process.process.pid, signal.SIGKILL))
    timer.start()
    process.follow()
    timer.cancel()


def held(earlier: list[ProgressLine], later: list[ProgressLine]) -> None:
    """What the earlier run finished, the later one finds; what it had begun is repeated by one interval at most."""
    finished = {line.step for line in earlier if line.state in ("finished", "cached")}
    found = {line.step for line in later if line.state == "cached"}
    again = {line.step for line in later if line.state in ("running", "finished")}
    assert finished <= found | {line.step for line in earlier if line.state == "started"} & found
    assert not finished & again
    before = [line.done for line in earlier if line.step == "distill" and "optimiser" in line.message]
    after = [line.done for line in later if line.step == "distill" and line.message == "training"]
    if before and after:
        assert after[0] > before[-1] - INTERVAL - 1


def test_three_kills_at_random_moments_change_nothing(
    store: Store, large: CompressResult, data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    plan = lean_plan(large, data_file, STEPS)
    quiet = Process(plan, store.root, tmp_path / "quiet")
    assert quiet.follow(lambda line: line.state == "started")
    began = time.monotonic()
    quiet.follow()
    took = time.monotonic() - began
    whole = quiet.made()

    other = Store(tmp_path / "killed")
    assert run_plan(plan_of(source={"uri": f"file:{model_folder}"}), other).artifact == large.artifact
    draw = random.Random()
    runs: list[Process] = []
    for number in range(3):
        runs.append(Process(plan, other.root, tmp_path / f"killed-{number}"))
        killed_after(runs[-1], draw.uniform(0.05, 0.6) * took)
        if runs[-1].process.returncode == 0:
            break
    runs.append(Process(plan, other.root, tmp_path / "last"))
    runs[-1].follow()
    made = runs[-1].made()
    assert made.artifact == whole.artifact
    assert [step.artifact for step in made.steps] == [step.artifact for step in whole.steps]
    for earlier, later in zip(runs, runs[1:], strict=False):
        held(earlier.lines, later.lines)


def test_a_kill_between_two_checkpoints_repeats_one_interval_at_most(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path
) -> None:
    plan = lean_plan(large, data_file, STEPS[1:2])
    first = Process(plan, store.root, tmp_path / "first", *EVERY_LINE)
    assert first.follow(lambda line: "optimiser" in line.message and steps_of(line) >= 3 * INTERVAL)
    first.kill()
    reached = max(steps_of(line) for line in first.lines)
    second = Process(plan, store.root, tmp_path / "second")
    second.follow()
    made = second.made()
    assert reached - INTERVAL <= (made.steps[0].resumed_at or 0)
    untouched = Store(tmp_path / "untouched")
    run_plan(plan_of(source={"uri": f"file:{plan_source(plan, large, store)}"}), untouched)
    assert run_plan(plan, untouched).artifact == made.artifact


def steps_of(line: ProgressLine) -> int:
    """Return the optimiser steps that a line tells of, 0 for another line."""
    words = line.message.removeprefix("optimiser step ").split("/")
    return int(words[0]) if line.message.startswith("optimiser step ") else 0


def plan_source(plan: CompressPlan, large: CompressResult, store: Store) -> Path:
    return store.open(large.artifact).path


def test_gptq_goes_on_at_the_layer_where_it_was_killed(
    store: Store, large: CompressResult, data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    plan = lean_plan(large, data_file, STEPS[2:])
    first = Process(plan, store.root, tmp_path / "first", *EVERY_LINE)
    assert first.follow(lambda line: line.message.startswith("layer ") and line.done >= 1)
    first.kill()
    second = Process(plan, store.root, tmp_path / "second")
    second.follow()
    made = second.made()
    assert (made.steps[0].resumed_at or 0) >= 1
    other = Store(tmp_path / "other")
    run_plan(plan_of(source={"uri": f"file:{model_folder}"}), other)
    assert run_plan(plan, other).artifact == made.artifact


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_within_two_seconds(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path, number: int, code: int
) -> None:
    process = Process(lean_plan(large, data_file, STEPS), store.root, tmp_path / "run", *EVERY_LINE)
    assert process.follow(lambda line: line.step == "distill" and line.state == "running")
    sent = time.monotonic()
    assert process.kill(number) == code
    assert time.monotonic() - sent < 2
    assert not process.result.exists()


def test_full_finetuning_resumes_to_the_same_bits(
    store: Store, data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    plan = plan_of(
        source={"uri": f"file:{model_folder}"},
        dataSets=[data_set(data_file)],
        finetune={"epochs": "30", "learningRate": "0.01", "checkpointSteps": 5, "method": "LoRA"},
    )
    first = Process(plan, store.root, tmp_path / "first", *EVERY_LINE)
    assert first.follow(lambda line: steps_of(line) >= 12)
    first.kill()
    second = run_plan(plan, store)
    assert second.steps[0].cached and (second.steps[1].resumed_at or 0) >= 5
    assert run_plan(plan, Store(tmp_path / "other")).artifact == second.artifact


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    import torch

    checkpoint.save(tmp_path, 5, {"a": torch.ones(3)}, {"fingerprint": "x"})
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.at == 5 and torch.equal(found.tensors()["a"], torch.ones(3))
    file = found.folder / checkpoint.TENSORS
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(bytes(raw))
    assert checkpoint.latest(tmp_path) is None


def test_a_checkpoint_replaces_the_one_before(tmp_path: Path) -> None:
    import torch

    for at in (5, 10):
        checkpoint.save(tmp_path, at, {"a": torch.full((3,), float(at))}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["at-000000010"]
    (tmp_path / "building-1").mkdir()
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.at == 10
