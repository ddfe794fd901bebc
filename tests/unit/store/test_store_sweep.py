"""The sweep: what is kept stays, what is young stays, what is at work is left alone, and a kill harms nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_making import forked

from leanmodel_store import sweep as command
from leanmodel_store.artifacts import Entry, Store
from leanmodel_store.sweep import BUSY, Swept, sweep

OLD = 1_000_000.0
LATER = 2_000_000.0


def made(store: Store, key: str, *, old: bool = True) -> Entry:
    with store.staging(key) as staging:
        (staging.path / "weights.safetensors").write_bytes(key.encode() * 100)
        entry = staging.commit({})
    if old:
        age(store, entry)
    return entry


def age(store: Store, entry: Entry) -> None:
    os.utime(store.root / "objects" / entry.digest[7:] / "manifest.json", (OLD, OLD))


def present(store: Store) -> set[str]:
    return {f"sha256:{folder.name}" for folder in (store.root / "objects").iterdir()}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.sets(st.integers(0, 5)), young=st.sets(st.integers(0, 5)))
def test_it_removes_what_is_neither_kept_nor_young(tmp_path_factory, kept, young):
    store = Store(tmp_path_factory.mktemp("store"))
    entries = [made(store, f"key-{number}", old=number not in young) for number in range(6)]
    done = sweep(store, {entries[number].digest for number in kept}, set(), LATER)
    stays = {entry.digest for number, entry in enumerate(entries) if number in kept | young}
    assert present(store) == stays
    assert done is not None and done.artifacts == 6 - len(stays)
    for entry in entries:
        assert (store.find(entry.key) is not None) == (entry.digest in stays)


def test_what_a_job_finds_again_after_the_list_was_written_is_spared(tmp_path):
    store = Store(tmp_path)
    entry = made(store, "a")
    written = time.time() - 1
    assert store.find("a") is not None
    assert sweep(store, set(), set(), written) == Swept(0, 0, 0)
    age(store, entry)
    with store.staging("b") as staging:  # the same content under another key
        (staging.path / "weights.safetensors").write_bytes(b"a" * 100)
        assert staging.commit({}).digest == entry.digest
    assert sweep(store, set(), set(), written) == Swept(0, 0, 0)


def test_it_does_nothing_while_a_job_is_at_work(tmp_path, capsys):
    store = Store(tmp_path)
    made(store, "a")
    with store.in_use(), store.in_use():
        assert sweep(store, set(), set(), LATER) is None
        words = ["--store", str(tmp_path), "--before", "2026-01-01T00:00:00Z"]
        assert command.main(words) == BUSY
    assert "at work" in capsys.readouterr().err
    assert len(present(store)) == 1
    assert command.main(words) == 0
    assert json.loads(capsys.readouterr().out)["artifacts"] == 1 and present(store) == set()


def test_checkpoints_and_pages_go_as_well(tmp_path):
    store = Store(tmp_path)
    checkpoint = store.scratch("left") / "state"
    checkpoint.write_bytes(b"x" * 10)
    fresh = store.scratch("fresh") / "state"
    fresh.write_bytes(b"x")
    os.utime(checkpoint, (OLD, OLD))
    os.utime(checkpoint.parent, (OLD, OLD))
    pages = tmp_path / "reports"
    pages.mkdir()
    for name in ("kept", "dropped"):
        (pages / f"{name}.html").write_text("<p>")
        os.utime(pages / f"{name}.html", (OLD, OLD))
    assert sweep(store, set(), {"kept"}, LATER) == Swept(0, 2, 13)
    assert not checkpoint.exists() and fresh.exists()
    assert [page.name for page in pages.iterdir()] == ["kept.html"]


@pytest.mark.parametrize("words", ["yesterday", "2026-01-01T00:00:00"])
def test_a_time_that_is_none_is_refused(tmp_path, capsys, words):
    with pytest.raises(SystemExit) as ended:
        command.main(["--store", str(tmp_path), "--before", words])
    assert ended.value.code == 2 and "--before" in capsys.readouterr().err


def test_a_kill_at_any_moment_leaves_whole_artifacts_or_none(tmp_path):
    for event in range(1, 200):
        root = tmp_path / str(event)
        store = Store(root)
        kept, gone = made(store, "kept"), made(store, "gone")

        def work(root: Path = root, keep: str = kept.digest) -> None:
            sweep(Store(root), {keep}, set(), LATER)

        status = forked(work, event)
        store = Store(root)
        assert store.find("kept") is not None
        found = store.find("gone")
        if found is not None:
            store.verify(found)
            age(store, found)
        assert sweep(store, {kept.digest}, set(), LATER) is not None
        assert present(store) == {kept.digest} and not list((root / "staging").iterdir())
        assert gone.digest not in present(store)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    else:
        raise AssertionError("the sweep never came to its end")
