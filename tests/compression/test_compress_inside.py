"""Decoders that learn what lies inside the large one: every family, what comes closer, kills, estimates and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import EVERY_LINE, Process, data_set, lean_plan, make_model, plan_of, run_plan
from step_alone import rows_of

from leanmodel_api.errors import ManifestError
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.batches import Rows
from leanmodel_compression.shapes import from_config
from leanmodel_compression.steps.inside import DecoderRecorder
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

FAMILIES = ("Llama", "Qwen3", "Gemma3", "GPT2", "Phi3")
CUT = {"type": "Prune", "keepLayers": 2, "selection": "First"}
TRAIN = {"epochs": "4", "learningRate": "0.01"}
INSIDE = {"type": "Distill", "objectives": ["Hidden", "Attention"], "labelWeight": "0", **TRAIN}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("inside") / "store")


@pytest.fixture(scope="module")
def large(store: Store, model_folder: Path, data_file: Path) -> CompressResult:
    tuned = {"epochs": "4", "learningRate": "0.01"}
    plan = plan_of(source={"uri": f"file:{model_folder}"}, dataSets=[data_set(data_file)], finetune=tuned)
    return run_plan(plan, store)


def states(store: Store, made: CompressResult, rows: Rows) -> tuple[Any, Any]:
    """Return a model's last hidden states of some rows, and queries, keys and values of its last layer in the last one."""
    folder = store.open(made.artifact).path
    model, shape = hf.load_model(folder), from_config(hf.read_json(folder / hf.CONFIG))
    heard, found = DecoderRecorder(model, shape, {shape.layers - 1}), []
    with torch.no_grad():
        for row in rows.validation:
            ids = torch.tensor([row.ids])
            found.append(model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0])
            last = heard.take()[shape.layers - 1]
    return torch.cat(found), last


def test_hidden_states_come_closer_than_answers_alone_bring_them(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    told = {"type": "Distill", "labelWeight": "0", **TRAIN}
    answers, inside, both = (
        run_plan(lean_plan(large, data_file, [CUT, step]), store)
        for step in (told, INSIDE, {**INSIDE, "objectives": ["Logits", "Hidden"], "hiddenWeight": "2"})
    )
    cut = run_plan(lean_plan(large, data_file, [CUT]), store)
    rows = rows_of(lean_plan(large, data_file, []), store, large)
    wanted = states(store, large, rows)[0]

    def apart(made: CompressResult) -> float:
        return 1 - float(
            torch.nn.functional.cosine_similarity(states(store, made, rows)[0], wanted, dim=-1).mean()
        )

    assert apart(inside) < 0.5 * apart(answers) and apart(both) < 0.5 * apart(cut)
    assert inside.steps[1].detail.startswith("Hidden, Attention, temperature 1, label weight 0")
    assert inside.artifact not in (answers.artifact, both.artifact)
    # Neither the answers nor the labels were told, and what was learned inside reaches both.
    assert inside.steps[1].figures["validationLoss"] < cut.steps[0].figures["validationLoss"]


@pytest.mark.parametrize(
    "family", [name if name == "Phi3" else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES]
)
def test_every_family_is_heard_and_learns(
    store: Store, family: str, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "model", texts, family)
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    shape = from_config(hf.read_json(folder / hf.CONFIG))
    rows = rows_of(lean_plan(start, data_file, []), store, start)
    _, (queries, keys, values) = states(store, start, rows)
    assert queries.shape[-1] == shape.heads * shape.head_dim
    assert keys.shape[-1] == values.shape[-1] == shape.kv_heads * shape.head_dim
    step = {
        **INSIDE,
        "epochs": "0.5",
        "layerMap": [{"student": 0, "teacher": 1}, {"student": 1, "teacher": 3}],
    }
    made = run_plan(lean_plan(start, data_file, [CUT, step]), store)
    assert made.steps[1].modules_changed > 0


def test_a_killed_training_ends_with_the_same_bytes(
    store: Store, large: CompressResult, data_file: Path, tmp_path: Path
) -> None:
    plan = lean_plan(large, data_file, [CUT, {**INSIDE, "checkpointSteps": 3, "hiddenWeight": "0.5"}])
    shutil.copytree(store.root, tmp_path / "store")
    first = Process(plan, tmp_path / "store", tmp_path / "first", *EVERY_LINE)
    assert first.follow(lambda line: "optimiser step 5/" in line.message)
    first.kill()
    second = Process(plan, tmp_path / "store", tmp_path / "second")
    second.follow()
    made = second.made()
    assert made.steps[1].resumed_at is not None and made.steps[1].resumed_at >= 3
    assert made.artifact == run_plan(plan, store).artifact


@pytest.mark.parametrize(
    ("more", "field", "words"),
    [
        ({"relationHeads": 3}, "steps[1].relationHeads", "do not divide"),
        ({"layerMap": [{"student": 2, "teacher": 0}]}, "steps[1].layerMap[0].student", "layers 0 to 1"),
        ({"layerMap": [{"student": 0, "teacher": 4}]}, "steps[1].layerMap[0].teacher", "layers 0 to 3"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    store: Store, large: CompressResult, data_file: Path, more: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        run_plan(lean_plan(large, data_file, [CUT, {**INSIDE, **more}]), store)
    assert field in str(caught.value) and words in str(caught.value)
