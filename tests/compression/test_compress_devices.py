"""Every step on a pretended GPU: no operator meets tensors of two devices, and the bytes are the processor's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, plan_of, run_plan
from decoder_making import make_model
from encoder_making import large_plan, make_encoder, sentence_encoder, student_plan, vectors_fields
from pretend_device import MixedDevicesError, pretended

from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_store.artifacts import Store

TRAINING = {"epochs": "1", "learningRate": "0.01", "maxExamples": 32, "checkpointSteps": 2, "batchSize": 8}
HEAL = {"type": "Heal", **TRAINING}
LORA = {**HEAL, "method": "LoRA", "loraRank": 2}
WANDA = {"type": "Prune", "method": "Wanda", "ratio": "0.5", "samples": 8}
NEURONS = {"type": "Prune", "method": "Neurons", "ratio": "0.5", "samples": 8}
GPTQ = {"type": "Quantize", "scheme": "W4A16", "algorithm": "GPTQ", "samples": 8}

DECODER: dict[str, list[dict[str, Any]]] = {
    "distill": [{"type": "Distill", **TRAINING}],
    "distill, stopped early": [{"type": "Distill", **TRAINING, "earlyStopping": {"patience": 1}}],
    "depth, heal": [{"type": "Prune", "keepLayers": 3, "samples": 8}, HEAL],
    "heal by LoRA": [{"type": "Prune", "method": "Magnitude", "structure": "2:4"}, LORA],
    "heal, aware of W4A16": [{**HEAL, "quantizationAware": "W4A16"}, {"type": "Quantize", "scheme": "W4A16"}],
    "heal, aware of W8A8": [{**HEAL, "quantizationAware": "W8A8"}, {"type": "Quantize", "scheme": "W8A8"}],
    "heal, pruned on the way": [{**HEAL, "pruneTo": "0.5"}],
    "heal, pruned by movement": [{**HEAL, "pruneTo": "0.5", "pruneBy": "Movement"}],
    "blocks": [{"type": "Prune", "method": "Magnitude", "ratio": "0.5", "structure": "Block", "blockSize": 4}],
    "neurons": [NEURONS],
    "heads": [{"type": "Prune", "method": "Heads", "ratio": "0.5", "samples": 8}],
    "width": [{"type": "Prune", "method": "Width", "ratio": "0.25", "samples": 8}],
    "factorize": [{"type": "Factorize", "ratio": "0.3", "samples": 8}, HEAL],
    "factorize by energy": [{"type": "Factorize", "energy": "0.9", "samples": 8}],
    "share, heal": [{"type": "Share", "protectFirst": 0}, HEAL],
    "trim": [{"type": "Trim"}],
    "sensitive layers": [{"type": "Quantize", "scheme": "W8A8", "ignoreSensitive": 1, "samples": 8}],
    "Wanda": [WANDA],
    "SparseGPT": [{**WANDA, "method": "SparseGPT"}],
    "GPTQ": [GPTQ],
    "SmoothQuant": [{"type": "Quantize", "scheme": "W8A8", "algorithm": "SmoothQuant", "samples": 8}],
    "AWQ": [{"type": "Quantize", "scheme": "W4A16", "algorithm": "AWQ", "samples": 4}],
}  # fmt: skip


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    """A decoder with two groups of heads, so that one can go."""
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    return make_model(tmp_path_factory.mktemp("grouped") / "tiny", texts, **sizes)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, grouped: Path) -> tuple[Store, CompressResult]:
    """A store with the large model; each test makes its lean model in a copy."""
    store = Store(tmp_path_factory.mktemp("kept") / "store")
    return store, run_plan(plan_of(source={"uri": f"file:{grouped}"}), store)


def copied(kept: tuple[Store, CompressResult], folder: Path) -> Store:
    import shutil

    shutil.copytree(kept[0].root, folder)
    return Store(folder)


def digests(made: CompressResult) -> list[str]:
    return [step.artifact for step in made.steps]


def both(plan: CompressPlan, one: Store, other: Store, count: int = 1) -> CompressResult:
    """Run a plan on the processor and on pretended GPUs; return the second result, after holding both together."""
    plain = run_plan(plan, one)
    with pretended(count):
        made = run_plan(plan, other)
    assert digests(made) == digests(plain)
    assert {step.device for step in plain.steps} == {"CPU"}
    return made


@pytest.mark.parametrize("name", DECODER)
def test_a_step_on_a_gpu_makes_the_same_bytes(
    name: str, kept: tuple[Store, CompressResult], tmp_path: Path, data_file: Path
) -> None:
    plan = lean_plan(kept[1], data_file, DECODER[name])
    made = both(plan, copied(kept, tmp_path / "one"), copied(kept, tmp_path / "other"))
    computing = [step for step in made.steps if step.type not in ("Share", "Expand")]
    assert {step.device for step in computing} == {"cuda:0 (pretended cuda:0)"}
