import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_making import forked

from leanmodel_api.errors import InputError, RefusedError
from leanmodel_store import digests, disk, names
from leanmodel_store.artifacts import Entry, Store

FILES = st.dictionaries(
    st.from_regex(r"\A[a-z]{1,6}(/[a-z]{1,6}\.(json|txt))?\Z"),
    st.binary(max_size=200),
    min_size=1,
    max_size=5,
).filter(lambda files: not any(a != b and b.startswith(a + "/") for a in files for b in files))


def make(store: Store, key: str, files: dict[str, bytes], meta: dict[str, object] | None = None) -> Entry:
    with store.staging(key) as staged:
        for name, data in files.items():
            (staged.path / name).parent.mkdir(parents=True, exist_ok=True)
            (staged.path / name).write_bytes(data)
        return staged.commit(meta or {})


def test_what_was_committed_is_found_by_key_and_by_digest(store: Store) -> None:
    made = make(store, "step-1", {"a.txt": b"one", "sub/b.txt": b"two"}, {"loss": 0.5, "layers": [0, 29]})
    found = store.find("step-1")
    assert found == made
    assert (found.path / "sub/b.txt").read_bytes() == b"two"
    assert found.bytes == 6 and found.meta == {"loss": 0.5, "layers": [0, 29]}
    assert store.open(made.digest, verify=True).digest == made.digest
    assert store.find("step-2") is None and store.recorded("step-2") is None


def test_artifacts_are_read_only_and_staging_and_scratch_are_gone(store: Store) -> None:
    (store.scratch("k") / "checkpoint").write_text("half way")
    entry = make(store, "k", {"a": b"1"})
    assert os.stat(entry.path / "a").st_mode & 0o222 == 0
    assert list((store.root / "staging").iterdir()) == []
    assert list((store.root / "scratch").iterdir()) == []


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=FILES, other=FILES)
def test_digests_are_equal_exactly_for_equal_content(
    one: dict[str, bytes], other: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store(tmp_path_factory.mktemp("s"))
    first = make(store, "one", one, {"meta": 1})
    again = make(Store(tmp_path_factory.mktemp("t")), "two", dict(reversed(one.items())), {"meta": 2})
    second = make(store, "other", other)
    assert first.digest == again.digest
    assert (first.digest == second.digest) == (one == other)
    assert {record.name for record in first.files} == set(one)


def test_same_content_under_two_keys_is_stored_once(store: Store) -> None:
    one, two = make(store, "one", {"a": b"same"}, {"by": 1}), make(store, "two", {"a": b"same"}, {"by": 2})
    assert one.path == two.path
    assert [store.find(key).meta for key in ("one", "two")] == [{"by": 1}, {"by": 2}]  # type: ignore[union-attr]
    assert len(list((store.root / "objects").iterdir())) == 1


def test_an_exception_or_no_commit_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.staging("k") as staged:
        (staged.path / "a").write_text("x")
        raise ZeroDivisionError
    with store.staging("k") as staged:
        (staged.path / "a").write_text("x")
    assert store.find("k") is None
    assert [list((store.root / part).iterdir()) for part in ("staging", "objects", "keys")] == [[], [], []]


@pytest.mark.parametrize("damage", ["missing", "shorter", "link", "manifest", "key"])
def test_a_damaged_artifact_counts_as_absent_and_is_made_whole_by_the_next_commit(
    store: Store, damage: str
) -> None:
    entry = make(store, "k", {"a": b"content", "b": b"more"})
    file = entry.path / "a"
    if damage == "missing":
        file.unlink()
    elif damage == "shorter":
        file.chmod(0o644)
        file.write_bytes(b"cont")
    elif damage == "link":
        file.unlink()
        file.symlink_to("b" * 7)
    elif damage == "manifest":
        (entry.path.parent / "manifest.json").write_text('{"files": [["../../x", 1, ')
    else:
        (store.root / "keys" / "k.json").write_text('{"key": "k", "digest": "sha256:../../..", "meta": {}}')
    assert store.find("k") is None
    if damage != "key":
        with pytest.raises(InputError, match="not whole"):
            store.open(entry.digest)
    again = make(store, "k", {"a": b"content", "b": b"more"})
    assert again.digest == entry.digest
    store.verify(again)
    assert store.find("k") == again


def test_a_changed_byte_is_found_by_verify_and_the_artifact_is_then_gone(store: Store) -> None:
    entry = make(store, "k", {"a": b"content"})
    (entry.path / "a").chmod(0o644)
    (entry.path / "a").write_bytes(b"CONTENT")
    assert store.find("k") is not None  # same size: only reading tells
    with pytest.raises(InputError, match="was changed in the store"):
        store.open(entry.digest, verify=True)
    assert store.find("k") is None
    assert store.recorded("k") == entry.digest


def test_a_manifest_whose_names_leave_the_store_is_not_followed(store: Store) -> None:
    secret = store.root.parent / "secret"
    secret.write_bytes(b"s")
    record = digests.FileRecord("../../../../secret", 1, digests.of_file(secret))
    digest = digests.of_records([record])
    folder = store.root / "objects" / digest.removeprefix("sha256:")
    (folder / "files").mkdir(parents=True)
    manifest = {"files": [[record.name, 1, record.sha256]], "key": "k", "meta": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError):
        store.open(digest)


@pytest.mark.parametrize("kind", ["link", "folder link", "fifo", "newline", "nothing"])
def test_what_cannot_be_kept_is_refused_at_commit(store: Store, kind: str) -> None:
    with pytest.raises(InputError), store.staging("k") as staged:
        if kind != "nothing":
            (staged.path / "good").write_text("x")
        if kind == "link":
            (staged.path / "bad").symlink_to("/etc/passwd")
        elif kind == "folder link":
            (staged.path / "bad").symlink_to("/etc")
        elif kind == "fifo":
            os.mkfifo(staged.path / "bad")
        elif kind == "newline":
            (staged.path / "bad\nname").write_text("x")
        staged.commit({})
    assert store.find("k") is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(min_size=1, max_size=300).filter(lambda text: text.isprintable()))
def test_no_key_leaves_the_store(key: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("s")
    store = Store(root / "store")
    entry = make(store, key, {"a": b"1"})
    store.scratch(key)
    with store.lock(key):
        assert store.find(key) == entry
    assert [path.name for path in root.iterdir()] == ["store"]
    assert len(list((store.root / "keys").iterdir())) == 1


@given(st.text(max_size=40))
def test_a_name_that_passes_stays_below_its_folder(name: str) -> None:
    if names.fault(name) is None:
        path = Path("/base/folder", name)
        assert os.path.normpath(path) == str(path)
        assert Path("/base/folder") in Path(os.path.normpath(path)).parents


@pytest.mark.parametrize(
    "name", ["", "/a", "../a", "a/../b", "a//b", "./a", "a\\b", "C:x", "a\0b", "a/", "x" * 300]
)
def test_bad_names(name: str) -> None:
    assert names.fault(name) is not None


def test_two_jobs_with_one_key_do_the_work_once(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "worked"

    def job() -> None:
        own = Store(store.root)
        with own.lock("k"):
            if own.find("k") is None:
                with open(log, "a") as handle:
                    handle.write("x")
                make(own, "k", {"a": b"1"})

    ready, go = os.pipe()
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                os.close(go)
                os.read(ready, 1)  # ends when the parent closes its end: all start at once
                job()
            finally:
                os._exit(0)
        pids.append(pid)
    os.close(go)
    for pid in pids:
        os.waitpid(pid, 0)
    os.close(ready)
    assert log.read_text() == "x"


def test_staging_of_a_living_process_is_left_alone(store: Store) -> None:
    with store.staging("k") as staged:
        (staged.path / "a").write_text("x")
        assert forked(lambda: None if Store(store.root).clean() == 0 else os._exit(3)) == 0
        assert store.clean() == 0
        staged.commit({})
    assert store.find("k") is not None


def test_too_little_disk_is_refused_with_both_figures(store: Store) -> None:
    free = disk.free_bytes(store.root)
    with pytest.raises(RefusedError) as caught:
        disk.require_free(store.root, 1 << 60, what="the copy")
    assert caught.value.exit_code == 3
    assert str((1 << 60) + disk.MARGIN) in str(caught.value)
    assert any(str(free)[:3] in str(issue) for issue in caught.value.issues)
    disk.require_free(store.root, 0, what="nothing")


def test_a_disk_that_fills_up_is_a_refusal(store: Store) -> None:
    with pytest.raises(RefusedError, match="the disk is full") as caught, store.staging("k") as staged:
        (staged.path / "part").write_bytes(b"x" * 5000)
        with open("/dev/full", "wb", buffering=0) as full:  # a write to it fails as on a full disk
            full.write(b"x")
    assert "5.0 kB were written" in str(caught.value)
    assert list((store.root / "staging").iterdir()) == []


def test_other_errors_pass_unchanged(store: Store) -> None:
    with pytest.raises(PermissionError), store.staging("k"):
        raise PermissionError("no")


def test_a_root_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be used"):
        Store(tmp_path / "file" / "store")


def test_write_atomic_keeps_the_old_bytes_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    disk.write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("cut")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="cut"):
        disk.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]
