"""``python -m leanmodel_store.sweep``: removes from a store what nobody needs any more.

Mark and sweep: whoever knows what is needed (the operator) names what to keep; all else goes, if it is older than
that list. What a Job made or found again after the list was written is younger, and stays. No Job works here
meanwhile: all of them share a lock that the sweep takes alone; where it cannot have it, it ends with exit code 75
and is tried again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import locks
from .artifacts import USE_LOCK, Store

BUSY = 75
"""EX_TEMPFAIL of sysexits.h."""


@dataclass(frozen=True)
class Swept:
    """What a sweep removed; ``bytes`` is what it freed."""

    artifacts: int
    others: int
    bytes: int


def sweep(store: Store, keep: Collection[str], reports: Collection[str], before: float) -> Swept | None:
    """Remove what is neither kept nor young.

    Args:
        keep: digests (``sha256:…``) of artifacts to keep.
        reports: keys of proofs whose pages (``reports/KEY.html``) are to be kept.
        before: seconds since 1970; what was made, found or written to after that stays.

    Returns:
        What was removed; None, and nothing was, because a Job is at work in this store.
    """
    handle = locks.acquire(store.root / USE_LOCK, wait=False)
    if handle is None:
        return None
    try:
        store.clean()
        unwanted = [folder for folder in _objects(store) if f"sha256:{folder.name}" not in keep]
        old = [folder for folder in unwanted if _age(folder / "manifest.json") < before]
        freed = sum(_take_away(store, folder) for folder in old)
        rest = [path for path in _leftovers(store, reports) if _age(path) < before]
        freed += sum(_take_away(store, path) for path in rest)
        return Swept(len(old), len(rest), freed)
    finally:
        os.close(handle)


def _objects(store: Store) -> Iterator[Path]:
    return (folder for folder in sorted((store.root / "objects").iterdir()) if folder.is_dir())


def _leftovers(store: Store, reports: Collection[str]) -> Iterable[Path]:
    """Yield checkpoints of unfinished steps, and pages of proofs that are not kept."""
    yield from sorted((store.root / "scratch").iterdir())
    pages = store.root / "reports"
    if pages.is_dir():
        yield from (page for page in sorted(pages.glob("*.html")) if page.stem not in reports)


def _age(path: Path) -> float:
    """Return when a file, or the youngest file below a folder, was written to (seconds since 1970).

    An artifact without a manifest is as old as its folder: a kill cannot leave one, but a hand can.
    """
    times = [0.0]
    with suppress(OSError):
        times.append(path.stat().st_mtime if path.exists() else path.parent.stat().st_mtime)
        times += [inner.stat().st_mtime for inner in path.rglob("*")] if path.is_dir() else []
    return max(times)


def _take_away(store: Store, path: Path) -> int:
    """Take something out of sight by one rename, then remove it; return the bytes that its files took."""
    size = sum(item.lstat().st_size for item in [path, *path.rglob("*")] if item.is_file())
    if path.is_dir():
        aside = store.root / "staging" / uuid.uuid4().hex
        os.rename(path, aside)
        shutil.rmtree(aside)
    else:
        path.unlink()
    return size


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep one store and print what was removed as one JSON object; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m leanmodel_store.sweep", description="Remove what nobody needs any more."
    )
    parser.add_argument("--store", type=Path, required=True, help="folder of the store")
    parser.add_argument(
        "--before", required=True, help="RFC 3339 time; what was made or used after it stays whatever it is"
    )
    parser.add_argument("--keep", nargs="*", default=[], metavar="DIGEST", help="artifacts to keep")
    parser.add_argument(
        "--keep-reports", nargs="*", default=[], metavar="KEY", help="pages of proofs to keep"
    )
    options = parser.parse_args(arguments)
    try:
        before = datetime.datetime.fromisoformat(options.before)
    except ValueError:
        parser.error(f"--before: found {options.before!r}; write a time such as 2026-01-31T00:00:00+00:00")
    if before.tzinfo is None:
        parser.error(f"--before: found {options.before!r}, which has no time zone; end it with Z")
    done = sweep(Store(options.store), set(options.keep), set(options.keep_reports), before.timestamp())
    if done is None:
        print("a Job is at work in this store: nothing was removed; try again later", file=sys.stderr)
        return BUSY
    print(json.dumps({"artifacts": done.artifacts, "others": done.others, "bytes": done.bytes}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
