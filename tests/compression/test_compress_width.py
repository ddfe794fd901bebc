"""Hidden channels: which go, that the rest computes as it did where they were silent, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_set, lean_plan, make_model, plan_of, run_apart, run_plan
from safetensors.torch import load_file, save_file

from leanmodel_api.errors import ManifestError
from leanmodel_compression import hf
from leanmodel_compression.shapes import from_config
from leanmodel_compression.steps.width import kept_width, unit
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

WIDTH = {"type": "Prune", "method": "Width", "ratio": "0.25", "samples": 16}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("width") / "store")


def silenced(folder: Path, channels: list[int]) -> None:
    """Make channels of a model stay at zero: nothing writes them, and the table has none."""
    tensors = load_file(str(folder / hf.WEIGHTS))
    for name, value in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            value[channels] = 0
        if name.endswith("embed_tokens.weight"):
            value[:, channels] = 0
    save_file(tensors, str(folder / hf.WEIGHTS), metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("family", "tied"),
    [
        ("Llama", True),
        pytest.param("Llama", False, marks=pytest.mark.long),
        pytest.param("Mistral", True, marks=pytest.mark.long),
        pytest.param("Qwen3", True, marks=pytest.mark.long),
    ],
)
def test_silent_channels_go_and_the_answers_stay(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path, family: str, tied: bool
) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_model(tmp_path / "model", texts, family, tie_word_embeddings=tied)
    silent = [1, 6, 7, 13, 20, 24, 29, 31]
    silenced(folder, silent)
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    made = run_apart(lean_plan(start, data_file, [WIDTH]), store)
    (step,) = made.steps
    path = store.open(made.artifact).path
    config = hf.read_json(path / hf.CONFIG)
    assert (config["hidden_size"], config["head_dim"]) == (24, 16)
    assert (
        made.bytes < 0.78 * start.bytes and step.figures["peakAnonymousBytes"] <= step.estimated_memory_bytes
    )
    # The table, two norms and seven matrices in each of four layers, the last norm, and the head where it is another.
    assert step.modules_changed == 1 + 9 * 4 + 1 + (not tied)
    kept = [channel for channel in range(32) if channel not in silent]
    old, new = (load_file(str(store.open(one.artifact).path / hf.WEIGHTS)) for one in (start, made))
    assert torch.equal(new["model.embed_tokens.weight"], old["model.embed_tokens.weight"][:, kept])
    # Nothing was in what went: the mean is over fewer channels, and the norms make up for just that.
    assert step.figures["normScaleLeast"] == pytest.approx((32 / 24) ** 0.5, abs=1e-6)
    assert step.figures["normScaleMost"] == pytest.approx((32 / 24) ** 0.5, abs=1e-6)
    # What any user would load it by: no class and no code of ours.
    cut = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32)
    whole = hf.load_model(store.open(start.artifact).path)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        wanted = whole(ids).logits
        # Norms are stored in bf16, and so is their scale.
        assert float((cut(ids).logits - wanted).abs().max()) < 0.02 * float(wanted.abs().max())


@pytest.mark.long
def test_a_narrow_model_is_healed_and_quantised(store: Store, model_folder: Path, data_file: Path) -> None:
    tuned: dict[str, Any] = {"epochs": "6", "learningRate": "0.005", "maxLength": 64}
    source, sets = {"uri": f"file:{model_folder}"}, [data_set(data_file)]
    start = run_plan(plan_of(source=source, finetune=tuned, dataSets=sets), store)
    steps = [
        WIDTH,
        {"type": "Heal", "epochs": "3", "learningRate": "0.005", "maxLength": 64},
        {"type": "Quantize", "scheme": "W8A8"},
    ]
    made = run_plan(lean_plan(start, data_file, steps), store)
    cut, healed, _ = made.steps
    assert healed.figures["validationLoss"] < 0.9 * cut.figures["validationLoss"]
    again = run_plan(lean_plan(start, data_file, steps[:1], seed=0), Store(store.root))
    assert again.artifact == cut.artifact


@pytest.mark.parametrize(
    ("family", "ratio", "field", "words"),
    [
        pytest.param("Qwen2", "0.25", "method", "write Neurons or Depth", marks=pytest.mark.long),
        ("Llama", "0.1", "ratio", 'write at least "0.125"'),
    ],
)
def test_what_engines_would_not_load_is_refused_before_any_work(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path, family: str, ratio: str,
    field: str, words: str,
) -> None:  # fmt: skip
    folder = make_model(tmp_path / "model", texts, family)
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    with pytest.raises(ManifestError) as caught:
        run_plan(lean_plan(start, data_file, [{**WIDTH, "ratio": ratio}]), store)
    assert any(
        issue.field == f"spec.lean.steps[0].{field}" and words in str(issue) for issue in caught.value.issues
    )


def test_widths_of_smollm2_stay_multiples_of_its_heads() -> None:
    from leanmodel_api.steps import Prune

    shape = from_config(
        {
            "architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536,
            "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        }
    )  # fmt: skip
    assert unit(shape) == 72
    found = [
        kept_width(Prune(type="Prune", method="Width", ratio=ratio), shape)
        for ratio in ("0.125", "0.25", "0.9")
    ]
    assert found == [504, 432, 72]
