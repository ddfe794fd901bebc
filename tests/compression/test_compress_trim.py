"""A trimmed model: smaller tables, the same answers, a tokenizer that loads as any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import data_set, lean_plan, make_model, plan_of, run_apart, run_plan
from safetensors.torch import load_file

from leanmodel_api.errors import InputError, ManifestError
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.steps.vocabulary import keep
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

TRIM = {"type": "Trim"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one test made, the next finds."""
    return Store(tmp_path_factory.mktemp("trim") / "store")


@pytest.fixture(scope="module")
def folder(texts: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_of(tmp_path_factory.mktemp("trimmed") / "model", texts)


@pytest.fixture(scope="module")
def start(store: Store, folder: Path) -> CompressResult:
    return run_plan(plan_of(source={"uri": f"file:{folder}"}), store)


def model_of(folder: Path, texts: list[tuple[str, str]], **sizes: object) -> Path:
    """Return a model whose tokenizer also learned words that the data set has not."""
    strange = [(label, " ".join(word[::-1] for word in text.split())) for label, text in texts]
    return make_model(folder, texts + strange, **sizes)


@pytest.mark.parametrize("tied", [True, False])
def test_tables_shrink_and_answers_stay(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path, tied: bool
) -> None:
    folder = model_of(tmp_path / "model", texts, tie_word_embeddings=tied)
    start = run_plan(plan_of(source={"uri": f"file:{folder}"}), store)
    made = run_apart(lean_plan(start, data_file, [TRIM]), store)
    step = made.steps[0]
    old, new = (store.open(digest).path for digest in (start.artifact, made.artifact))
    kept, before = int(step.figures["tokens"]), int(step.figures["tokensBefore"])
    assert kept < before and step.modules_changed == (1 if tied else 2)
    assert start.parameters - made.parameters == (before - kept) * 32 * (1 if tied else 2)
    assert made.bytes < start.bytes
    assert hf.read_json(new / hf.CONFIG)["vocab_size"] == kept == len(hf.load_tokenizer(new))
    assert step.figures["validationTokens"] >= 1
    assert step.figures["peakAnonymousBytes"] <= step.estimated_memory_bytes
    tokenizers = [hf.load_tokenizer(place) for place in (old, new)]
    models = [hf.load_model(place) for place in (old, new)]
    number = {tokenizers[0].get_vocab()[token]: new for token, new in tokenizers[1].get_vocab().items()}
    columns, compared = sorted(number), 0
    for _, text in texts:
        chat = [{"role": "user", "content": text}]
        asked, told = (t.apply_chat_template(chat, return_dict=False) for t in tokenizers)
        assert tokenizers[0].decode(asked) == tokenizers[1].decode(told)
        if set(asked) <= number.keys():
            assert told == [number[before] for before in asked]
            with torch.no_grad():
                was, now = (m(torch.tensor([ids])).logits[0] for m, ids in zip(models, (asked, told), strict=True))  # fmt: skip
            torch.testing.assert_close(now, was[:, columns], rtol=1e-4, atol=1e-5)
            compared += 1
    # The train part at least: 0.4 of the messages.
    assert compared >= 96
    assert tokenizers[1].decode(tokenizers[1].encode("Ünseen wörds 漢字 🙂")) == "Ünseen wörds 漢字 🙂"
    assert hf.read_json(new / hf.CONFIG)["eos_token_id"] == tokenizers[1].eos_token_id
    for name, tensor in load_file(str(new / hf.WEIGHTS)).items():
        if "embed" not in name and "lm_head" not in name:
            assert torch.equal(tensor, load_file(str(old / hf.WEIGHTS))[name])


def test_it_goes_on_to_the_next_step_and_gives_the_same_bits(
    store: Store, data_file: Path, start: CompressResult, folder: Path, tmp_path: Path
) -> None:
    plan = lean_plan(start, data_file, [TRIM, {"type": "Quantize", "scheme": "W8A8"}])
    made, again = run_plan(plan, store), run_plan(plan, store)
    assert [step.type for step in made.steps] == ["Trim", "Quantize"]
    assert [step.cached for step in again.steps] == [True, True] and again.artifact == made.artifact
    other = Store(tmp_path / "other")
    run_plan(plan_of(source={"uri": f"file:{folder}"}), other)
    assert run_plan(plan, other).artifact == made.artifact
    table = load_file(str(store.open(made.artifact).path / hf.WEIGHTS))["model.embed_tokens.weight"]
    assert len(table) == made.steps[0].figures["tokens"]


def test_as_many_tokens_stay_as_are_asked_for(store: Store, data_file: Path, start: CompressResult) -> None:
    fewest = run_plan(lean_plan(start, data_file, [TRIM]), store).steps[0].figures["tokens"]
    wanted = int(fewest) + 3
    made = run_plan(lean_plan(start, data_file, [{**TRIM, "minVocabulary": wanted}]), store)
    assert made.steps[0].figures["tokens"] == wanted


def test_a_tokenizer_that_does_not_read_back_is_no_artifact(
    store: Store, data_file: Path, start: CompressResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leanmodel_compression.steps import vocabulary

    # A cut that forgets what the kept tokens are made of.
    monkeypatch.setattr(
        vocabulary, "keep", lambda tokenizer, used, least: sorted({*used, *keep(tokenizer, [], 0)})
    )
    with pytest.raises(InputError, match="the trimmed model splits"):
        run_plan(lean_plan(start, data_file, [{**TRIM, "minVocabulary": 1}]), store)


def test_another_kind_of_tokenizer_is_refused_by_its_name(
    store: Store, data_file: Path, large: CompressResult, model_folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "unigram"
    source.mkdir()
    for path in model_folder.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["model"]["type"] = "Unigram"
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    plan = plan_of(source={"uri": f"file:{source}"}, dataSets=[data_set(data_file)])
    lean = lean_plan(large, data_file, [TRIM])
    with pytest.raises(ManifestError, match=r"steps\[0\]\.type: Trim of a Unigram tokenizer"):
        run_plan(plan, store, [lean])
