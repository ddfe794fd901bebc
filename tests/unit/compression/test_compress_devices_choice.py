"""Which devices a Job takes, and what a GPU is held to: by tables, with no GPU and no weights."""

from __future__ import annotations

import pytest

from leanmodel_api.errors import RefusedError
from leanmodel_api.plan import CompressPlan
from leanmodel_compression import checks, devices, memory
from leanmodel_compression.devices import Devices, Used
from leanmodel_compression.machine import Machine
from leanmodel_compression.shapes import from_config

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1000, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "count", "found"),
    [
        ("Auto", 0, Devices("cpu", "cpu")),
        ("Auto", 1, Devices("cuda:0", "cuda:0")),
        ("Auto", 2, Devices("cuda:0", "cuda:1")),
        ("CPU", 2, Devices("cpu", "cpu")),
        ("GPU", 4, Devices("cuda:0", "cuda:3")),
    ],
)
def test_devices_follow_from_what_is_asked_and_what_is_there(wanted, count, found) -> None:
    assert devices.choose(wanted, count) == found


def test_a_gpu_that_is_not_there_is_refused_and_the_processor_is_left() -> None:
    with pytest.raises(
        RefusedError, match=r"^spec\.jobs\.compress\.device: found GPU, .*; write Auto or CPU"
    ):
        devices.choose("GPU", 0)
    with pytest.raises(RefusedError):
        devices.use("GPU")
    assert devices.here() == devices.teacher() == "cpu" and devices.free() is None


def test_what_was_used_is_noted_within_the_block_alone() -> None:
    with devices.noting() as used:
        assert used.words() == "CPU"
        devices.here()
    devices.teacher()
    assert used == Used({"cpu"}, 0) and used.words() == "CPU"


@pytest.mark.parametrize(("device", "gpu"), [("cpu", False), ("cuda", True), ("cuda:1", True)])
def test_gpus_are_told_by_their_name(device: str, gpu: bool) -> None:
    assert devices.on_gpu(device) is gpu


def plan() -> CompressPlan:
    steps = [
        {"type": "Prune", "method": "Magnitude", "ratio": "0.5"},
        {"type": "Share", "protectFirst": 0},
    ]
    limits = {"memoryBytes": 2**40}
    return CompressPlan.model_validate({"name": "m", "role": "Lean", "steps": steps, "limits": limits})


@pytest.mark.parametrize(("free", "refused"), [(None, 0), (2**40, 0), (1, 2)])
def test_each_step_is_held_against_the_gpus_free_memory(free: int | None, refused: int) -> None:
    items = checks.planned(plan())
    items = [item for item in items if item.step.name != "Expand"]
    tasks = checks.chain(items, from_config(CONFIG), 0, [None] * len(items), None)
    found = checks.refusals(tasks, 2**40, Machine(2**40, 2**40, free))
    assert [issue.field for issue in found] == ["spec.jobs.compress.device"] * refused
    for item, task in tasks:
        need = checks.device_bytes(item, task)
        assert 0 < need <= item.step.memory(task) - memory.PROCESS_BYTES
        exact = Machine(2**40, 2**40, need)
        assert not checks.refusals([(item, task)], 2**40, exact)
        assert checks.refusals([(item, task)], 2**40, Machine(2**40, 2**40, need - 1))


def test_other_errors_are_not_taken_for_a_full_gpu() -> None:
    assert devices.full(RuntimeError("out of memory")) is None
