"""Every step of decoders on a pretended GPU: no operator meets tensors of two devices, the bytes are the processor's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import data_set, lean_plan, plan_of, run_plan
from decoder_making import make_model
from pretend_device import FIRST, both, copied

from leanmodel_api.plan import CompressResult
from leanmodel_compression.steps import teachers
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.timeout(590)]

TRAINING = {"epochs": "1", "learningRate": "0.01", "maxExamples": 32, "checkpointSteps": 2, "batchSize": 8}
HEAL = {"type": "Heal", **TRAINING}
INSIDE = {"type": "Distill", "objectives": ["Logits", "Hidden", "Attention"]}
LORA = {**HEAL, "method": "LoRA", "loraRank": 2}
WANDA = {"type": "Prune", "method": "Wanda", "ratio": "0.5", "samples": 8}
NEURONS = {"type": "Prune", "method": "Neurons", "ratio": "0.5", "samples": 8}
GPTQ = {"type": "Quantize", "scheme": "W4A16", "algorithm": "GPTQ", "samples": 8}

DECODER: dict[str, list[dict[str, Any]]] = {
    "distill": [{"type": "Distill", **TRAINING}],
    "distill, stopped early": [{"type": "Distill", **TRAINING, "earlyStopping": {"patience": 1}}],
    "distill, inside": [{**INSIDE, **TRAINING}],
    "weights in 8 bits, and the table": [{"type": "Quantize", "scheme": "W8A16", "embeddings": "Int8"}],
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

QUICK = ("distill", "heal by LoRA", "neurons", "Wanda", "GPTQ", "weights in 8 bits, and the table")
"""One of each kind of work; the others belong to the long tests."""


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    """A decoder with two groups of heads, so that one can go."""
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    return make_model(tmp_path_factory.mktemp("grouped") / "tiny", texts, **sizes)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, grouped: Path) -> tuple[Store, CompressResult]:
    """A store with the large model; each test makes its lean model in copies."""
    store = Store(tmp_path_factory.mktemp("kept") / "store")
    return store, run_plan(plan_of(source={"uri": f"file:{grouped}"}), store)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in DECODER]
)
def test_a_step_on_a_gpu_makes_the_same_bytes(
    name: str, kept: tuple[Store, CompressResult], tmp_path: Path, data_file: Path
) -> None:
    stores = copied(kept[0], tmp_path / "one"), copied(kept[0], tmp_path / "other")
    made = both(lean_plan(kept[1], data_file, DECODER[name]), *stores)
    hosts = [step for step in made.steps if step.type in ("Share", "Expand")]
    assert {step.device for step in hosts} <= {"CPU"}
    assert {step.device for step in made.steps if step not in hosts} == {FIRST}
    assert all("peakDeviceBytes" in step.figures for step in made.steps if step not in hosts)


@pytest.mark.parametrize("method", ["Full", "LoRA"])
def test_a_large_model_is_adapted_on_a_gpu(
    method: str, grouped: Path, store: Store, tmp_path: Path, data_file: Path
) -> None:
    tuned = {**TRAINING, "method": method, **({"loraRank": 2} if method == "LoRA" else {"trainLayers": 2})}
    plan = plan_of(source={"uri": f"file:{grouped}"}, finetune=tuned, dataSets=[data_set(data_file)])
    made = both(plan, store, Store(tmp_path / "other"))
    assert [step.device for step in made.steps] == ["CPU", FIRST]


def test_a_gpt2_whose_layers_are_turned_is_trained_and_cut(
    tmp_path: Path, texts: list[tuple[str, str]], store: Store, data_file: Path
) -> None:
    folder = make_model(tmp_path / "gpt2", texts, "GPT2")
    large = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    steps = [NEURONS, HEAL]
    both(
        lean_plan(large, data_file, steps), copied(store, tmp_path / "one"), copied(store, tmp_path / "other")
    )


@pytest.mark.parametrize(
    ("live", "more"),
    [(False, {}), (True, {}), (True, INSIDE)],
    ids=["logits kept", "teacher asked each time", "and of what lies inside"],
)
def test_of_two_gpus_the_teacher_has_the_last(
    live: bool,
    more: dict[str, Any],
    kept: tuple[Store, CompressResult],
    tmp_path: Path,
    data_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if live:
        monkeypatch.setattr(teachers, "KEPT_BYTES", 0)
    plan = lean_plan(kept[1], data_file, [{"type": "Distill", **TRAINING, **more}])
    made = both(plan, copied(kept[0], tmp_path / "one"), copied(kept[0], tmp_path / "other"), 2)
    assert made.steps[0].device == "cuda:0 (pretended cuda:0), cuda:1 (pretended cuda:1)"
