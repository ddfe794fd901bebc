"""The Job around devices: it goes on from another one, searches on one, and says what is too small or not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import lean_plan, plan_of, run_plan
from encoder_making import TASK, large_plan, make_encoder, texts_set
from llmcompressor.core import reset_session
from pretend_device import GPU, MixedDevicesError, copied, pretended

from leanmodel_api.errors import RefusedError
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.progress import ProgressLine
from leanmodel_compression import __main__ as command
from leanmodel_compression import devices
from leanmodel_compression.estimate import estimate
from leanmodel_compression.job import Job
from leanmodel_compression.progress import Reporter
from leanmodel_compression.steps import training
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.timeout(590)]
HEAL = {"type": "Heal", "epochs": "1", "learningRate": "0.01", "maxExamples": 64, "checkpointSteps": 2, "batchSize": 8}  # fmt: skip
NEURONS = {"type": "Prune", "method": "Neurons", "ratio": "0.5", "samples": 8}
GPTQ = {"type": "Quantize", "scheme": "W4A16", "algorithm": "GPTQ", "samples": 8}
LIMITS = {"memoryBytes": 6 * 2**30, "threads": 1}


class _PowerCutError(Exception):
    """Ends a run on the way."""


def cut_at(words: str) -> Reporter:
    def emit(line: ProgressLine) -> None:
        if words in line.message:
            raise _PowerCutError

    return Reporter("compress-lean", emit=emit, interval=0)


@pytest.mark.parametrize("first", ["GPU", "CPU"])
def test_a_training_goes_on_on_another_device_to_the_same_bytes(
    first: str, large: CompressResult, store: Store, data_file: Path, tmp_path: Path
) -> None:
    plan, whole = lean_plan(large, data_file, [HEAL]), copied(store, tmp_path / "whole")
    with pytest.raises(_PowerCutError):
        if first == "GPU":
            with pretended():
                Job(plan, store, cut_at("optimiser step 5/")).run()
        else:
            Job(plan, store, cut_at("optimiser step 5/")).run()
    if first == "GPU":
        made = run_plan(plan, store)
    else:
        with pretended():
            made = run_plan(plan, store)
    assert made.steps[0].resumed_at == 4
    assert made.steps[0].device == ("CPU" if first == "GPU" else "cuda:0 (pretended cuda:0)")
    assert run_plan(plan, whole).artifact == made.artifact


@pytest.mark.parametrize("step", [NEURONS, GPTQ], ids=["neurons", "GPTQ"])
def test_layers_that_were_finished_on_a_gpu_are_taken_from_there(
    step: dict[str, Any], large: CompressResult, store: Store, data_file: Path, tmp_path: Path
) -> None:
    plan, other = lean_plan(large, data_file, [step]), copied(store, tmp_path / "other")
    with pretended(), pytest.raises(_PowerCutError):
        Job(plan, store, cut_at("layer 2/4")).run()
    reset_session()
    shutil.copytree(store.root, tmp_path / "third")
    with pretended():
        again = run_plan(plan, Store(tmp_path / "third"))
    made = run_plan(plan, store)
    assert made.steps[0].resumed_at == again.steps[0].resumed_at == 2
    assert made.artifact == again.artifact == run_plan(plan, other).artifact


def test_what_was_made_is_found_again_whatever_device_made_it(
    large: CompressResult, store: Store, data_file: Path
) -> None:
    plan = lean_plan(large, data_file, [HEAL])
    with pretended():
        made = run_plan(plan, store)
    found = run_plan(lean_plan(large, data_file, [HEAL], limits={**LIMITS, "device": "CPU"}), store)
    assert found.artifact == made.artifact and found.steps[0].cached
    assert found.steps[0].device == made.steps[0].device == "cuda:0 (pretended cuda:0)"


def test_the_processor_is_kept_to_where_it_is_asked_for(
    large: CompressResult, store: Store, data_file: Path
) -> None:
    plan = lean_plan(large, data_file, [HEAL], limits={**LIMITS, "device": "CPU"})
    with pretended() as places:
        made = run_plan(plan, store)
    assert made.steps[0].device == "CPU" and places.moved == 0


def test_a_gpu_that_is_not_there_is_refused_with_its_field(
    large: CompressResult, store: Store, data_file: Path
) -> None:
    plan = lean_plan(large, data_file, [HEAL], limits={**LIMITS, "device": "GPU"})
    with pytest.raises(RefusedError, match=r"spec\.jobs\.compress\.device: found GPU, and torch sees none"):
        run_plan(plan, store)
    with pretended():
        assert run_plan(plan, store).steps[0].device != "CPU"


def test_the_estimate_is_held_against_the_gpus_memory(
    large: CompressResult, store: Store, data_file: Path, model_folder: Path
) -> None:
    plan = lean_plan(large, data_file, [HEAL])
    with pretended(free=2**20), pytest.raises(RefusedError) as caught:
        run_plan(plan, store)
    assert str(caught.value).startswith("spec.jobs.compress.device: spec.lean.steps[0] (Heal) needs about")
    assert "1 MiB are free; write CPU, use a larger GPU" in str(caught.value)
    fetching = plan_of(source={"uri": f"file:{model_folder}"}, limits={**LIMITS, "device": "GPU"})
    refusals = estimate([fetching], store).refusals
    assert len(refusals) == 1 and refusals[0].startswith("spec.jobs.compress.device: found GPU")
    with pretended(free=2**20):
        assert "of the GPU's memory" in estimate([fetching], store).refusals[0]


def test_a_full_gpu_ends_with_the_field_to_change(
    large: CompressResult, store: Store, data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def full(*_: Any, **__: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(training, "answer_logits", full)
    result = tmp_path / "result.json"
    with pretended():
        assert command.run(lean_plan(large, data_file, [HEAL]), [], store.root, result) == 3
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(
        "error: spec.jobs.compress.device: out of memory on the GPU (CUDA out of memory. Tried"
    )
    assert "write CPU, use a larger GPU" in said and not result.exists()


@pytest.mark.long
def test_a_search_measures_its_candidates_on_a_gpu(
    store: Store, data_file: Path, tmp_path: Path, texts: list[tuple[str, str]]
) -> None:
    split = {"seed": 0, "train": "0.5", "validation": "0.2", "fit": "0.1", "certify": "0.1", "report": "0.05", "test": "0.05"}  # fmt: skip
    sets = [texts_set(data_file, split=split)]
    tuned = run_plan(large_plan(make_encoder(tmp_path / "bert", texts), data_file, dataSets=sets), store)
    training = {"epochs": "4", "learningRate": "0.01", "maxLength": 32}
    search = {"budget": {"bytes": "10M"}, "promise": {"retain": "0.9"}, "training": training}
    plan = plan_of(
        role="Lean", base=tuned.artifact, teacher=tuned.artifact, dataSets=sets, search=search, task=TASK, maxModelLength=64,
    )  # fmt: skip
    other = copied(store, tmp_path / "other")
    with pretended() as places:
        made = run_plan(plan, other)
    plain = run_plan(plan, store)
    assert places.moved and made.artifact == plain.artifact
    assert made.search is not None and plain.search is not None
    assert (made.search.chosen, made.search.large) == (plain.search.chosen, plain.search.large)


def test_the_result_says_which_device(
    large: CompressResult, store: Store, data_file: Path, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    plan = CompressPlan.model_validate_json(lean_plan(large, data_file, [HEAL]).to_json())
    with pretended():
        assert command.run(plan, [], store.root, result) == 0
    (step,) = json.loads(result.read_text())["steps"]
    assert step["device"] == "cuda:0 (pretended cuda:0)"


def test_a_step_that_forgets_to_move_its_rows_is_caught(
    large: CompressResult, store: Store, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training.collate
    monkeypatch.setattr(training, "collate", lambda rows, part, pad, _device=None: whole(rows, part, pad))
    with pretended(), pytest.raises(MixedDevicesError, match=r"\(\d+, 32\) on cuda:0, \(\d+, \d+\) on cpu"):
        run_plan(lean_plan(large, data_file, [HEAL]), store)
    devices.use("CPU")
    assert run_plan(lean_plan(large, data_file, [HEAL]), store).artifact


def test_the_pretended_gpu_refuses_what_cuda_refuses(tmp_path: Path) -> None:
    with pretended():
        from safetensors.torch import save_file

        one, other = torch.ones(2, 3, device="cuda"), torch.ones(2, 3)
        assert one.device == GPU and (one + 1).T.device == GPU and other.to(one).device == GPU
        assert torch.zeros_like(one).device == GPU and one.cpu().device.type == "cpu"
        assert torch.equal((one * torch.tensor(2.0)).cpu(), torch.full((2, 3), 2.0))
        for wrong in (
            lambda: one + other,
            lambda: other.add_(one.sum()),
            lambda: torch.cat([one, other]),
            lambda: torch.nn.functional.linear(one, other),
            lambda: one[0].add_(torch.ones(3, device="cuda:1")),
            lambda: one.numpy(),
            lambda: one.normal_(generator=torch.Generator()),
            lambda: save_file({"one": one}, str(tmp_path / "one.safetensors")),
        ):
            with pytest.raises(MixedDevicesError):
                wrong()
        weight = torch.nn.Parameter(torch.ones(3))
        weight.data = one[0].clone()
        assert weight.device == GPU
        other.copy_(one)
        save_file({"other": other}, str(tmp_path / "other.safetensors"))
