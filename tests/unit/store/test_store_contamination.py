"""Texts that are taught and asked about: found across data sets, counted, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_api.datasets import DataSet
from leanmodel_api.parts import Example
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store
from leanmodel_store.contamination import HELD, TAUGHT, contaminated, issue, shared

WORDS = st.lists(st.sampled_from(["win", "cash", "WIN", "lunch"]), min_size=1, max_size=3).map(" ".join)


def data(folder: Path, name: str, texts: list[str], **more: object) -> DataSet:
    (folder / f"{name}.tsv").write_text("text\n" + "".join(f"{text}\n" for text in texts))
    return DataSet.model_validate({"name": name, "source": {"uri": f"file:{name}.tsv"}, "format": "TSV", "prompt": {"text": "{text}"}, **more})  # fmt: skip


@given(st.lists(WORDS), st.lists(WORDS))
def test_the_shared_are_those_whose_words_are_taught(taught: list[str], held: list[str]) -> None:
    found = shared(
        [Example(id=str(at), text=f" {text.replace(' ', chr(10))}") for at, text in enumerate(taught)],
        [Example(id=str(at), text=text) for at, text in enumerate(held)],
    )
    assert [example.text for example in found] == [text for text in held if text in set(taught)]


def test_two_data_sets_of_which_one_teaches_what_the_other_holds_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    mine = data(tmp_path, "mine", [f"number  {at} is mine" for at in range(60)])
    proof = data(tmp_path, "proof", [f"number {at} is mine" if at % 2 else f"own {at}" for at in range(60)])
    taught, held = (datasets.load(each, tmp_path, store) for each in (mine, proof))
    found = contaminated(taught, held)
    train = {str(e.text).split()[1] for name in TAUGHT for e in getattr(taught, name)}
    asked = [e for name in HELD for e in getattr(held, name) if str(e.text).endswith("mine")]
    assert [e.id for e in found] == [e.id for e in asked if str(e.text).split()[1] in train]
    assert len(found) > 3
    line = datasets.line_of(proof, tmp_path, store, found[0], field="spec.dataSets[1]")
    assert line == 2 + int(str(found[0].text).split()[1])
    said = str(issue("spec.dataSets[0]", "proof", found, line))
    assert said.startswith(f"spec.dataSets[0].source: it teaches {len(found)} texts that data set 'proof'")
    assert f"line {line} of its file" in said and "is mine" not in said


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.booleans())
def test_one_data_set_never_teaches_what_it_holds_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kept: bool
) -> None:
    folder = tmp_path_factory.mktemp("one")
    texts = [f"text {at % 211}" + " " * (at % 3) for at in range(600)]
    mine = data(folder, "mine", texts, dropDuplicates=kept, split={"seed": seed})
    parts = datasets.load(mine, folder, Store(folder / "store"))
    assert contaminated(parts, parts) == []
