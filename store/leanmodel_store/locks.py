"""Advisory locks on files: the kernel drops them when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _same(handle: int, path: Path) -> bool:
    """Return whether ``path`` still names the open file; a cleaner may have removed it before we had it."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    held = os.fstat(handle)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def acquire(path: Path, *, wait: bool, shared: bool = False) -> int | None:
    """Lock a file, which is made when it is not there.

    Args:
        path: the lock's file.
        wait: block until it is free; otherwise give up at once.
        shared: others may hold it as well, as long as they share it too.

    Returns:
        The open descriptor that holds the lock until it is closed, or None when it is taken.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        if _same(handle, path):
            return handle
        os.close(handle)


@contextmanager
def held(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock during the block; wait for it first. Not re-entrant."""
    handle = acquire(path, wait=True, shared=shared)
    assert handle is not None
    try:
        yield
    finally:
        os.close(handle)
