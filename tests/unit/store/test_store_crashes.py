"""Kills at every file operation, and at random moments: nothing half-written is ever seen, nothing stays behind."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from store_making import forked, write_model

from leanmodel_api.sources import Source
from leanmodel_store.artifacts import Store
from leanmodel_store.sources import fetch

FILES = {"a.bin.safetensors": b"a" * 3000, "sub/b.txt": b"b" * 10}


def commit(root: Path) -> None:
    store = Store(root)
    (store.scratch("k") / "checkpoint").write_text("1")
    with store.lock("k"), store.staging("k") as staged:
        for name, data in FILES.items():
            (staged.path / name).parent.mkdir(exist_ok=True)
            (staged.path / name).write_bytes(data)
        staged.commit({"n": 1})


def fetch_folder(root: Path) -> None:
    fetch(Source(uri="file:model"), root.parent, Store(root))


def killed_everywhere(
    work: Callable[[Path], None], roots: Callable[[int], Path], every: int = 1
) -> list[Store]:
    """Run ``work`` killed before its 1st, 2nd, … file operation until it gets through; return the stores."""
    stores = []
    for event in range(1, 400, every):
        root = roots(event)
        status = forked(lambda root=root: work(root), kill_at_event=event)  # type: ignore[misc]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return stores
        assert os.WTERMSIG(status) == signal.SIGKILL
        stores.append(Store(root))
    raise AssertionError("it never got through")


def test_a_commit_killed_before_any_of_its_operations_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    stores = killed_everywhere(commit, lambda event: tmp_path / str(event))
    assert len(stores) > 25  # otherwise the hook saw nothing
    digests = set()
    visible = 0
    for store in stores:
        entry = store.find("k")
        if entry is not None:
            visible += 1
            store.verify(entry)
            assert entry.meta == {"n": 1}
        else:
            assert (store.root / "scratch/k/checkpoint").exists() or not (store.root / "keys/k.json").exists()
        for made in (store.root / "objects").iterdir():
            store.open(f"sha256:{made.name}", verify=True)
        commit(store.root)
        again = store.find("k")
        assert again is not None
        digests.add(again.digest)
        left = [*(store.root / "staging").iterdir(), *(store.root / "scratch").iterdir()]
        assert left == []
        assert [path.name for path in (store.root / "keys").iterdir()] == ["k.json"]
    assert 0 < visible < len(stores)
    assert len(digests) == 1


def test_a_fetch_killed_before_any_of_its_operations_is_done_again_with_the_same_digest(
    tmp_path: Path,
) -> None:
    write_model(tmp_path / "model")
    stores = killed_everywhere(fetch_folder, lambda event: tmp_path / f"store-{event}", every=3)
    assert len(stores) > 15
    digests = {fetch(Source(uri="file:model"), tmp_path, store).digest for store in stores}
    assert len(digests) == 1
    for store in stores:
        store.clean()
        assert list((store.root / "staging").iterdir()) == []


def test_replacing_a_damaged_artifact_may_be_killed_too(tmp_path: Path) -> None:
    def damaged(event: int) -> Path:
        root = tmp_path / str(event)
        commit(root)
        entry = Store(root).find("k")
        assert entry is not None
        (entry.path / "sub/b.txt").unlink()
        return root

    for store in killed_everywhere(commit, damaged, every=4):
        entry = store.find("k")
        if entry is not None:
            store.verify(entry)
        commit(store.root)
        assert store.find("k") is not None


@pytest.mark.parametrize("seed", range(30))
def test_kills_at_random_moments_never_show_a_part(tmp_path: Path, seed: int) -> None:
    root = tmp_path / "store"
    Store(root)

    def work() -> None:
        store = Store(root)
        for number in range(10_000):
            with store.staging(f"k{number}") as staged:
                (staged.path / "weights").write_bytes(os.urandom(200_000))
                (staged.path / "config").write_text(str(number))
                staged.commit({"number": number})

    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    deadline = time.monotonic() + 20
    while not (root / "keys" / "k0.json").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(random.Random(seed).uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    store = Store(root)
    keys = [path.stem for path in (root / "keys").iterdir()]
    assert "k0" in keys
    for key in keys:
        entry = store.find(key)
        assert entry is not None and entry.meta == {"number": int(key[1:])}
        store.verify(entry)
        assert (entry.path / "config").read_text() == key[1:]
    store.clean()
    assert list((root / "staging").iterdir()) == []
