"""Lines of JSON that are added one by one and outlive a kill: what has been paid for is not paid for again.

A line is written by a single ``write`` to a file opened for appending. What a killed process leaves is at most one torn
last line, which the next one cuts off. Who writes has the file alone.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Journal:
    """A file of lines, each a JSON object."""

    def __init__(self, path: Path):
        """Remember where it is; nothing is opened yet."""
        self.path = path
        self._file: int | None = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the file open and alone during the block; another process waits here. A torn last line is cut off."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            data = self.path.read_bytes()
            if (end := data.rfind(b"\n") + 1) != len(data):
                os.ftruncate(handle, end)
            self._file = handle
            yield
            os.fsync(handle)
        finally:
            self._file = None
            os.close(handle)

    def lines(self) -> list[dict[str, Any]]:
        """Return the whole lines, in order; those that are no JSON object are passed over. No file: none."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return [
            line for raw in data[: data.rfind(b"\n") + 1].splitlines() if (line := _object(raw)) is not None
        ]

    def append(self, line: Mapping[str, Any], *, durable: bool = False) -> None:
        """Add a line.

        Args:
            line: a JSON object.
            durable: wait until it is on the disk, so that a power cut does not forget it either.

        Raises:
            OSError: the disk is full.
            RuntimeError: outside of :meth:`writing`.
        """
        if self._file is None:
            raise RuntimeError(f"{self.path.name} is not open for writing")
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        if os.write(self._file, data) != len(data):
            raise OSError(f"could not append a whole line to {self.path.name}: is the disk full?")
        if durable:
            os.fdatasync(self._file)


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(raw)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
