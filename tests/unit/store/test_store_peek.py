"""A look at a source: what is here is said to be, and a file is looked at where it lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_making import write_model

from leanmodel_api.errors import InputError
from leanmodel_api.sources import Source
from leanmodel_store import peek, sources
from leanmodel_store.artifacts import Store

FIELD = "spec.large.source"


def test_a_folder_is_looked_at_where_it_lies(store: Store, manifest_dir: Path) -> None:
    write_model(manifest_dir / "model")
    source = Source(uri="file:model")
    assert peek.look(source, manifest_dir, store, FIELD) == manifest_dir / "model"
    assert peek.here(source, manifest_dir, store, "model", FIELD)
    assert not store.root.exists() or not list(store.root.rglob("*.safetensors"))


def test_what_was_fetched_is_looked_at_in_the_store(store: Store, manifest_dir: Path) -> None:
    write_model(manifest_dir / "model")
    source = Source(uri="file:model")
    entry = sources.fetch(source, manifest_dir, store)
    assert peek.look(source, manifest_dir, store, FIELD) == entry.path


def test_one_gguf_file_among_others_is_the_one(store: Store, manifest_dir: Path) -> None:
    for name in ("one.gguf", "two.gguf"):
        (manifest_dir / name).write_bytes(b"GGUF")
    assert peek.look(Source(uri="file:two.gguf"), manifest_dir, store, FIELD) == manifest_dir / "two.gguf"
    inner = Source(uri=f"file:{manifest_dir}", path="two.gguf")
    assert peek.look(inner, manifest_dir, store, FIELD) == manifest_dir / "two.gguf"


@pytest.mark.parametrize(
    ("uri", "field", "words"),
    [
        ("file:absent", f"{FIELD}.uri", "there is no file or folder"),
        ("pypi:tiny==1", f"{FIELD}.uri", "cannot be had without its weights"),
        ("hf://none", f"{FIELD}.uri", "names no repository"),
    ],
)
def test_what_cannot_be_looked_at_is_told_by_its_field(
    store: Store, manifest_dir: Path, uri: str, field: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as found:
        peek.look(Source(uri=uri), manifest_dir, store, FIELD)
    assert found.value.issues[0].field == field


def test_a_wheel_is_here_only_when_it_was_fetched(store: Store, manifest_dir: Path) -> None:
    assert not peek.here(Source(uri="pypi:tiny==1"), manifest_dir, store, "data", "spec.dataSets[0].source")
