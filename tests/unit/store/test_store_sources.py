import os
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_making import gguf_bytes, write_model

from leanmodel_api.errors import InputError
from leanmodel_api.sources import Source
from leanmodel_store import digests, sources
from leanmodel_store.artifacts import Store

FIELD = "spec.large.source"


def fetch(uri: str, folder: Path, store: Store, **source: str) -> sources.Entry:
    return sources.fetch(Source(uri=uri, **source), folder, store, field=FIELD)  # type: ignore[arg-type]


def test_a_folder_becomes_an_artifact_with_only_what_is_needed(store: Store, manifest_dir: Path) -> None:
    model = write_model(manifest_dir / "model")
    (model / "modeling_own.py").write_text("import os")
    (model / ".git").mkdir()
    (model / ".git" / "x.safetensors").write_text("")
    told: list[tuple[int, int]] = []
    entry = sources.fetch(Source(uri="file:model"), manifest_dir, store, lambda *bytes: told.append(bytes))
    assert [record.name for record in entry.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert told[-1] == (entry.bytes, entry.bytes)
    assert entry.meta == {"kind": "model", "uri": "file:model"}


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "file://localhost{}"])
def test_absolute_addresses(store: Store, manifest_dir: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / "elsewhere" / "m.gguf"
    file.parent.mkdir()
    file.write_bytes(gguf_bytes())
    entry = fetch(form.format(file), manifest_dir, store)
    assert [record.name for record in entry.files] == ["m.gguf"]


def test_a_relative_safetensors_file_brings_its_folder_along(store: Store, manifest_dir: Path) -> None:
    write_model(manifest_dir / "model")
    one = fetch("file:model/model.safetensors", manifest_dir, store)
    assert one.digest == fetch("file:model", manifest_dir, store, path="model.safetensors").digest
    assert one.digest == fetch("file:.", manifest_dir, store, path="model").digest


@pytest.mark.parametrize(
    "uri", ["file:../model", "file:model/../../model", "file:link", "file:link/model.safetensors"]
)
def test_a_path_that_leaves_its_folder_is_refused(
    store: Store, manifest_dir: Path, tmp_path: Path, uri: str
) -> None:
    write_model(tmp_path / "model")
    (manifest_dir / "link").symlink_to(tmp_path / "model")
    with pytest.raises(InputError, match=f"{FIELD}.uri: .*the path leaves its folder"):
        fetch(uri, manifest_dir, store)


def test_a_link_out_of_the_source_is_refused(store: Store, manifest_dir: Path, tmp_path: Path) -> None:
    model = write_model(manifest_dir / "model")
    (tmp_path / "secret.json").write_text('{"password": "x"}')
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(tmp_path / "secret.json")
    for uri in ("file:model", f"file:{model}"):
        with pytest.raises(InputError, match="config.json is a link that leaves its folder"):
            fetch(uri, manifest_dir, store)


def test_a_snapshot_in_the_hubs_cache_may_be_named_by_its_path(
    store: Store, manifest_dir: Path, tmp_path: Path
) -> None:
    repo = tmp_path / "hub" / "models--org--m"
    real = write_model(repo / "blobs")
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for path in real.iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert len(fetch(f"file:{snapshot}", manifest_dir, store).files) == 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(alphabet="./ab~%\\", max_size=12))
def test_no_path_reads_outside(store: Store, manifest_dir: Path, path: str) -> None:
    outside = manifest_dir.parent / "a"
    outside.mkdir(exist_ok=True)
    write_model(outside)
    for source in (Source(uri=f"file:{path}x"[:-1] or "file:"), Source(uri="file:.", path=path or None)):
        if source.uri.startswith("file:/"):
            continue
        with pytest.raises(
            InputError
        ):  # nothing is below the manifest's folder, so any success came from outside
            sources.fetch(source, manifest_dir, store)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("file:absent", "there is no file or folder"),
        ("file:", "names no path"),
        ("file://host/x", "host's name"),
        ("s3://bucket/x", "'s3' is not supported yet"),
        ("http://x/y", "'http' is not supported yet"),
        ("model", "not supported yet"),
    ],
)
def test_addresses_that_are_refused(store: Store, manifest_dir: Path, uri: str, said: str) -> None:
    with pytest.raises(InputError, match=f"{FIELD}.uri: .*{said}"):
        fetch(uri, manifest_dir, store)


def test_a_revision_means_nothing_for_a_file(store: Store, manifest_dir: Path) -> None:
    with pytest.raises(InputError, match=f"{FIELD}.revision"):
        fetch("file:x", manifest_dir, store, revision="main")


def test_a_pickle_is_refused_by_name_and_by_content(store: Store, manifest_dir: Path) -> None:
    model = write_model(manifest_dir / "model")
    (model / "pytorch_model.bin").write_bytes(pickle.dumps([1]))
    for case in ({"uri": "file:model/pytorch_model.bin"}, {"uri": "file:model", "path": "pytorch_model.bin"}):
        with pytest.raises(InputError, match="pickle.*convert the weights to safetensors"):
            sources.fetch(Source(**case), manifest_dir, store)  # type: ignore[arg-type]
    (model / "model.safetensors").write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match="model.safetensors is a pickle"):
        fetch("file:model", manifest_dir, store)
    assert list((store.root / "objects").iterdir()) == []


def test_damaged_weights_are_refused(store: Store, manifest_dir: Path) -> None:
    model = write_model(manifest_dir / "model")
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-2])
    with pytest.raises(InputError, match="model.safetensors is damaged: .*cut off"):
        fetch("file:model", manifest_dir, store)


def test_the_digest_of_the_manifest_is_held(store: Store, manifest_dir: Path) -> None:
    model = write_model(manifest_dir / "model")
    digest = digests.of_records(digests.record_folder(model))
    assert fetch("file:model", manifest_dir, store, digest=digest).digest == digest
    with pytest.raises(
        InputError, match=rf"{FIELD}.digest: sha256:0+ is expected, .*write `digest: {digest}`"
    ):
        fetch("file:model", manifest_dir, store, digest="sha256:" + "0" * 64)


def test_the_digest_of_one_file_is_its_own_sha256(store: Store, manifest_dir: Path) -> None:
    (manifest_dir / "m.gguf").write_bytes(gguf_bytes())
    digest = "sha256:" + digests.of_file(manifest_dir / "m.gguf")
    fetch("file:m.gguf", manifest_dir, store, digest=digest)
    (manifest_dir / "m.gguf").write_bytes(gguf_bytes(b"\x02" * 64))
    with pytest.raises(InputError, match="tampered with"):
        fetch("file:m.gguf", manifest_dir, store, digest=digest)


def test_the_first_fetch_is_held_until_a_digest_says_otherwise(store: Store, manifest_dir: Path) -> None:
    model = write_model(manifest_dir / "model")
    first = fetch("file:model", manifest_dir, store)
    write_model(model, values=[9.0, 9.0, 9.0])  # same size
    with pytest.raises(
        InputError, match=f"changed since it was first fetched: .* recorded {first.digest}"
    ) as caught:
        fetch("file:model", manifest_dir, store)
    new = str(caught.value).rpartition("`digest: ")[2].rstrip("`")
    second = fetch("file:model", manifest_dir, store, digest=new)
    assert second.digest == new != first.digest
    assert fetch("file:model", manifest_dir, store).digest == new
    assert store.open(first.digest).digest == first.digest  # what was made from it can still be explained


def test_an_unchanged_source_is_not_copied_again(store: Store, manifest_dir: Path) -> None:
    write_model(manifest_dir / "model")
    first = fetch("file:model", manifest_dir, store)
    inode = os.stat(first.path / "model.safetensors").st_ino
    assert os.stat(fetch("file:model", manifest_dir, store).path / "model.safetensors").st_ino == inode


def test_a_tampered_copy_in_the_store_is_made_anew(store: Store, manifest_dir: Path) -> None:
    write_model(manifest_dir / "model")
    first = fetch("file:model", manifest_dir, store)
    inside = first.path / "config.json"
    inside.chmod(0o644)
    inside.write_text(inside.read_text().replace("llama", "gemma"))
    again = fetch("file:model", manifest_dir, store)
    assert again.digest == first.digest
    assert "llama" in (again.path / "config.json").read_text()
    store.verify(again)


def test_data_is_kept_apart_from_models(store: Store, manifest_dir: Path) -> None:
    (manifest_dir / "rows.jsonl").write_text("{}\n")
    entry = sources.fetch(Source(uri="file:rows.jsonl"), manifest_dir, store, kind="data")
    assert [record.name for record in entry.files] == ["rows.jsonl"]
    with pytest.raises(InputError, match="no weights"):
        sources.fetch(Source(uri="file:rows.jsonl"), manifest_dir, store)
    (manifest_dir / "rows.tsv").write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match="rows.tsv is a pickle"):
        sources.fetch(Source(uri="file:rows.tsv"), manifest_dir, store, kind="data")
