import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_making import gguf_bytes, safetensors_bytes

from leanmodel_api.errors import InputError
from leanmodel_store import formats
from leanmodel_store.choose import BESIDE, choose_data, choose_model
from leanmodel_store.formats import gguf, pickles, safetensors

COMPLETE = ["config.json", "tokenizer.json"]


def none(_: str) -> list[str]:
    raise AssertionError("no index was expected to be read")


class Harmful:
    """What an attacker's weights do when they are loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("1/0",))


def torch_zip(inner: str = "archive/data.pkl") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(inner, pickle.dumps(Harmful()))
    return buffer.getvalue()


def old_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


PICKLED = {
    "protocol 2": pickle.dumps({"w": 1}, 2),
    "protocol 5": pickle.dumps(Harmful(), 5),
    "protocol 0": pickle.dumps(Harmful(), 0),
    "torch zip": torch_zip(),
    "any zip": torch_zip("weights"),
    "tar": old_tar(),
    "numpy": b"\x93NUMPY\x01\x00" + b" " * 100,
}


@pytest.mark.parametrize("content", PICKLED)
@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf", "tokenizer.model", "config.json"])
def test_a_pickle_is_refused_under_every_name(tmp_path: Path, content: str, name: str) -> None:
    (tmp_path / name).write_bytes(PICKLED[content])
    with pytest.raises(InputError) as caught:
        formats.check(tmp_path / name, name, "spec.large.source")
    assert "spec.large.source" in str(caught.value) and name in str(caught.value)
    assert "convert the weights to safetensors" in str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "a/b.PTH", "w.pkl", "last.ckpt", "x.npz"])
def test_names_of_pickles(name: str) -> None:
    assert pickles.is_name(name)
    with pytest.raises(InputError, match="pickles.*convert"):
        choose_model([name, *COMPLETE], None, none, "f")
    with pytest.raises(InputError, match="pickles.*convert"):
        choose_model([name, *COMPLETE], name, none, "f")


def test_true_files_pass(tmp_path: Path) -> None:
    good = {
        "model.safetensors": safetensors_bytes(), "m.gguf": gguf_bytes(), "config.json": b"{}",
        "merges.txt": "Ġ t".encode(), "chat_template.jinja": b"{{ x }}", "tokenizer.model": b"\x0a\x0e\x0a",
    }  # fmt: skip
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)
        formats.check(tmp_path / name, name, "f")


@given(st.binary(max_size=300))
def test_no_bytes_break_the_checks(data: bytes) -> None:
    # The checks see files only; /dev/shm spares the disk.
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp", f"leanmodel-check-{id(data)}")
    path.write_bytes(data)
    try:
        for check in (*formats.CHECKS.values(), pickles.fault):
            assert check(path) is None or isinstance(check(path), str)
    finally:
        path.unlink()


def with_header(header: object, data: bytes = b"\0" * 8) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "too few"),
        (struct.pack("<Q", 1 << 40) + b"{}", "promise a header"),
        (with_header(b"{not json"), "not JSON"),
        (with_header([1]), "not a JSON object"),
        (with_header({"__metadata__": {}}), "no tensor"),
        (with_header({"w": {"dtype": "F32", "shape": [2]}}), "incomplete"),
        (with_header({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}), "type and shape"),
        (with_header({"w": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}), "type and shape"),
        (with_header({"w": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}), "gaps"),
        (safetensors_bytes()[:-1], "cut off"),
        (safetensors_bytes() + b"x", "too long"),
    ],
)
def test_damaged_safetensors(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "w").write_bytes(data)
    assert said in str(safetensors.fault(tmp_path / "w"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GGML" + gguf_bytes()[4:], "does not begin"),
        (gguf_bytes()[:12], "ends within"),
        (b"GGUF" + struct.pack("<IQQ", 9, 1, 0) + b"\0" * 64, "version is 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 50, 0), "promises"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "promises"),
    ],
)
def test_damaged_gguf(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "w").write_bytes(data)
    assert said in str(gguf.fault(tmp_path / "w"))


def test_the_one_gguf_is_found_wherever_it_is() -> None:
    choice = choose_model(["pkg/__init__.py", "pkg/m/x.gguf"], None, none, "f")
    assert choice.names == ("pkg/m/x.gguf",) and choice.target("pkg/m/x.gguf") == "x.gguf"
    assert choose_model(["pkg/a.gguf", "pkg/b.gguf"], "./pkg//b.gguf", none, "f").names == ("pkg/b.gguf",)


def test_safetensors_take_configuration_and_tokenizer_along_and_no_code() -> None:
    listing = [
        "modeling_x.py",
        "model.safetensors",
        "pytorch_model.bin",
        "README.md",
        "onnx/model.onnx",
        *COMPLETE,
    ]
    assert choose_model(listing, None, none, "f").names == (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    )


def test_shards_come_from_the_index_and_other_weights_stay() -> None:
    listing = [
        "m/model.safetensors.index.json", "m/model-00001-of-00002.safetensors", "m/model-00002-of-00002.safetensors",
        "m/consolidated.safetensors", "m/config.json", "m/tokenizer.model",
    ]  # fmt: skip
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    choice = choose_model(listing, "m", lambda _: shards, "f")
    assert set(choice.names) == set(listing) - {"m/consolidated.safetensors"}
    assert choice.target("m/config.json") == "config.json"
    with pytest.raises(InputError, match="shards that are missing: m/model-3"):
        choose_model(listing, None, lambda _: [*shards, "model-3.safetensors"], "f")
    for bad in ("../x.safetensors", "/etc/passwd", "sub/x.safetensors"):
        with pytest.raises(InputError, match="outside its folder"):
            choose_model(listing, None, lambda _, bad=bad: [bad], "f")


@pytest.mark.parametrize(
    ("listing", "path", "said"),
    [
        ([], None, "no weights"),
        (["README.md"], None, "no weights among the files: README.md"),
        (["a.gguf", "b.gguf"], None, "2 sets of weights: a.gguf, b.gguf"),
        (["a.gguf"], "c.gguf", "no 'c.gguf' among the files: a.gguf"),
        (["a.gguf"], "../a.gguf", "leaves its folder"),
        (["a.gguf"], "/a.gguf", "absolute"),
        (["m-00001-of-00002.gguf"], None, "split GGUF"),
        (["model.safetensors", "tokenizer.json"], None, "no config.json"),
        (["model.safetensors", "config.json"], None, "no tokenizer (tokenizer.json"),
        (["model.safetensors", "config.json", "vocab.json"], None, "no tokenizer (tokenizer.json"),
        (["README.md"], "README.md", "no weights"),
        (["model.safetensors.index.json", *COMPLETE], None, "names no shards"),
    ],
)
def test_choices_that_are_refused(listing: list[str], path: str | None, said: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_model(listing, path, lambda _: [], "spec.large.source")
    assert said in str(caught.value)
    assert str(caught.value).startswith("spec.large.source")


NAMES = st.sampled_from(
    ["model.safetensors", "a.gguf", "sub/b.gguf", "sub/model.safetensors", "x.py", "pytorch_model.bin", "run.sh",
     *sorted(BESIDE)[:12]]
)  # fmt: skip


@given(
    listing=st.lists(NAMES, unique=True),
    path=st.none() | st.sampled_from(["sub", "a.gguf", ".", "sub/b.gguf"]),
)
def test_only_listed_and_harmless_files_are_ever_chosen(listing: list[str], path: str | None) -> None:
    try:
        choice = choose_model(listing, path, none, "f")
    except InputError:
        return
    assert set(choice.names) <= set(listing)
    assert any(name.endswith((".gguf", ".safetensors")) for name in choice.names)
    assert not any(name.endswith((".py", ".bin", ".sh")) for name in choice.names)


def test_data_is_one_file() -> None:
    assert choose_data(["d/a.tsv"], None, "f").target("d/a.tsv") == "a.tsv"
    assert choose_data(["d/a.tsv", "d/b.tsv"], "d/b.tsv", "f").names == ("d/b.tsv",)
    with pytest.raises(InputError, match="holds 2 files: a.tsv, b.tsv"):
        choose_data(["b.tsv", "a.tsv"], None, "f")
    with pytest.raises(InputError, match="leaves its folder"):
        choose_data(["a.tsv"], "../a.tsv", "f")
