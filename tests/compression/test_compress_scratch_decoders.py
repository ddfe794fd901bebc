"""Decoders that begin with random weights: the sizes that were asked for in every family, the same tokens, taught by the large model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import lean_plan, plan_of, run_apart, run_plan
from decoder_making import make_model

from leanmodel_api.errors import InputError
from leanmodel_compression import hf
from leanmodel_compression.families import FAMILIES
from leanmodel_compression.shapes import from_config
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]

SMALL: dict[str, Any] = {
    "type": "Scratch", "layers": 3, "hiddenSize": 64, "intermediateSize": 40, "heads": 2, "kvHeads": 1,
}  # fmt: skip
TAUGHT = {"type": "Distill", "learningRate": "0.01", "epochs": "6", "maxLength": 64}
NAMES = sorted(
    one.architecture.removesuffix("ForCausalLM").removesuffix("LMHeadModel") for one in FAMILIES.values()
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("scratch") / "store")


@pytest.mark.parametrize("family", NAMES)
def test_a_small_model_of_the_family_is_drawn_and_taught(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path, family: str
) -> None:
    folder = make_model(tmp_path / "model", texts, family)
    large = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    small = {name: value for name, value in SMALL.items() if name != "kvHeads" or family != "GPT2"}
    made = run_apart(lean_plan(large, data_file, [small, TAUGHT]), store)
    begun, taught = made.steps
    before, shape = (from_config(hf.read_json(store.open(one).path / hf.CONFIG)) for one in (large.artifact, begun.artifact))  # fmt: skip
    assert (shape.layers, shape.hidden, shape.intermediate, shape.heads, shape.head_dim) == (3, 64, 40, 2, 32)
    assert shape.kv_heads == (2 if family == "GPT2" else 1) and shape.vocabulary == before.vocabulary
    counted = sum(
        parameter.numel() for parameter in hf.load_model(store.open(begun.artifact).path).parameters()
    )
    assert abs(shape.parameters - counted) < 0.02 * counted
    assert begun.figures["peakAnonymousBytes"] <= begun.estimated_memory_bytes
    assert taught.figures["validationLoss"] < 0.7 * begun.figures["validationLoss"]


def test_the_same_sizes_draw_the_same_weights_and_others_are_refused(
    store: Store, data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    large, other = run_plan(plan_of(source={"uri": f"file:{model_folder}"}), store), Store(tmp_path / "other")
    assert run_plan(plan_of(source={"uri": f"file:{model_folder}"}), other).artifact == large.artifact
    steps = [SMALL, {**TAUGHT, "maxExamples": 8, "epochs": "1"}]
    one, two = (run_plan(lean_plan(large, data_file, steps), place) for place in (store, other))
    assert [step.artifact for step in one.steps] == [step.artifact for step in two.steps]


@pytest.mark.parametrize(
    ("family", "more", "words"),
    [
        ("Llama", {"heads": 4}, r"steps\[0\]\.heads: 4 heads of 16 of hiddenSize 64, .*; write one of 1, 2"),
        ("Llama", {"hiddenSize": 24, "heads": 2}, r"steps\[0\]\.heads: 2 heads of 12 .*; write a hiddenSize that 64 divides"),
        ("GPT2", {}, r"steps\[0\]\.kvHeads: found 1, and a GPT-2 has as many as heads; remove it"),
    ],
    ids=["heads too narrow", "no heads fit", "kvHeads of a GPT-2"],
)  # fmt: skip
def test_sizes_that_no_engine_serves_are_refused_before_any_work(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path, family: str, more: dict[str, Any], words: str
) -> None:  # fmt: skip
    folder = make_model(tmp_path / "model", texts, family)
    large = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    with pytest.raises(InputError, match=words):
        run_plan(lean_plan(large, data_file, [{**SMALL, **more}, TAUGHT]), store)
