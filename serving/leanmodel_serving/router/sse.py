"""Server-sent events, as far as OpenAI's streams use them: one line of data per event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pydantic_core import from_json

DONE = b"[DONE]"
_USAGE_MARK = b'"usage"'


def event(data: bytes) -> bytes:
    """Return data as an event on the wire."""
    return b"data: " + data + b"\n\n"


def usage_chunk(data: bytes) -> dict[str, Any] | None:
    """Return the chunk of a stream that carries nothing but the usage, None for any other."""
    chunk = from_json(data) if _USAGE_MARK in data else None
    return chunk if isinstance(chunk, dict) and chunk.get("usage") and not chunk.get("choices") else None


class EventReader:
    """Cuts a byte stream into the data of its events, wherever the chunks break."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in bytes; return the data of the events that they complete (comments are skipped)."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        found = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data.clear()
        return found


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the data of the events in a stream of bytes."""
    reader = EventReader()
    async for chunk in chunks:
        for data in reader.feed(chunk):
            yield data
