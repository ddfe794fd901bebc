"""What the disk can hold, and writes that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leanmodel_api.errors import RefusedError, one

MARGIN = 64 * 2**20
"""Bytes left free beyond what is needed: logs, indexes and the file system's own tables grow too."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def free_bytes(root: Path) -> int:
    """Return the bytes that may still be written under ``root``, which need not exist yet."""
    folder = root.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size(count: float) -> str:
    """Return a count of bytes in words, such as ``94.1 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def require_free(root: Path, needed: int, *, what: str, field: str = "spec.store.uri") -> None:
    """Refuse before any work when ``needed`` bytes (and a margin) do not fit under ``root``.

    Args:
        root: the store's folder.
        needed: bytes that the work will write.
        what: the work in words, such as ``the weights of …``.
        field: the manifest's field that decides where it is written.

    Raises:
        RefusedError: too little is free; the message has both figures.
    """
    free = free_bytes(root)
    if free < needed + MARGIN:
        raise one(
            RefusedError, field,
            f"{what} needs {size(needed + MARGIN)} ({needed + MARGIN} bytes) of disk and {size(free)} "
            f"({free} bytes) is free at {root}",
            "free some space, or name a folder on a larger disk",
        )  # fmt: skip


def is_full(error: BaseException) -> bool:
    """Return whether an error says that the disk (or the quota) is used up, whichever library raised it."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(os.strerror(number) in str(error) for number in _FULL)


@contextmanager
def refusing_when_full(
    root: Path, written: Path | None = None, *, field: str = "spec.store.uri"
) -> Iterator[None]:
    """Turn a disk that fills up inside the block into a refusal which says what was written and what is free.

    Args:
        root: folder whose disk is written to.
        written: folder whose size tells how much had been written already.
        field: the manifest's field that decides where it is written.

    Raises:
        RefusedError: the block failed for want of space.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RefusedError) or not is_full(error):
            raise
        so_far = folder_bytes(written) if written is not None else 0
        free = free_bytes(root)
        raise one(
            RefusedError, field,
            f"the disk is full: {size(so_far)} were written, more than that is needed, and {size(free)} "
            f"({free} bytes) is free at {root}",
            "free some space, or name a folder on a larger disk; what is finished is kept",
        ) from error  # fmt: skip


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all regular files below ``folder``; files that vanish meanwhile do not count."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:
                continue
    return total


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until a folder's list of names is on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes, *, fresh: Path | None = None) -> None:
    """Write a file so that a reader, whenever we crash, sees the old bytes or the new, never a part.

    Args:
        path: the file.
        data: its new bytes.
        fresh: where they are written first, on the same file system; default: beside it, under a hidden name.
    """
    fresh = fresh or path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        with open(fresh, "xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
