"""The API keys that open the router: a watched folder of entries, none of which a key can be told from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from leanmodel_api.keys import SUFFIX, KeyEntry, split

from .errors import ApiError

LOOK_ALL_S = 10.0
"""A folder says by its own time that an entry came or went; this often each entry is looked at too."""
MOST_BYTES = 64 * 1024
_NOBODY = KeyEntry(
    id="0" * 10, tenant="nobody", salt="0" * 32, hash="sha256:" + "0" * 64, created="1970-01-01T00:00:00+00:00"
)  # fmt: skip
log = logging.getLogger("ray.serve")


class Keyring:
    """The keys of one folder; without one there are none, and nobody is let in."""

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Read the folder once; a folder that is not there yet is empty."""
        self._folder, self._clock = folder, clock
        self._entries: dict[str, KeyEntry] = {}
        self._files: dict[str, tuple[int, int, int]] = {}
        self._seen: tuple[int, int] | None = None
        self._looked = float("-inf")
        self.look()

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._entries)

    def entries(self) -> dict[str, KeyEntry]:
        """Return the entries by id."""
        return dict(self._entries)

    def look(self) -> None:
        """Take in what has changed. An entry that cannot be read opens nothing; what it was before is gone."""
        if self._folder is None:
            return
        try:
            stat = self._folder.stat()
        except OSError:
            self._entries, self._files, self._seen = {}, {}, None
            return
        now, seen = self._clock(), (stat.st_ino, stat.st_mtime_ns)
        if seen == self._seen and now - self._looked < LOOK_ALL_S:
            return
        self._seen, self._looked = seen, now
        self._read(self._folder)

    def _read(self, folder: Path) -> None:
        files: dict[str, tuple[int, int, int]] = {}
        entries: dict[str, KeyEntry] = {}
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                stat = path.stat()
                mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
                known = self._entries.get(path.stem) if self._files.get(path.name) == mark else None
                entry = known or _entry(path, stat.st_size)
            except (OSError, ValueError) as error:
                if self._files.get(path.name) is None:
                    # Not pydantic's own words: they would show what the file holds.
                    log.error("keys: %s is no entry and opens nothing (%s)", path.name, type(error).__name__)
                continue
            files[path.name], entries[entry.id] = mark, entry
        if entries != self._entries:
            log.info("keys: %d in force", len(entries))
        self._files, self._entries = files, entries

    def opened(self, key: bytes) -> KeyEntry:
        """Return the entry of a key.

        Args:
            key: the bearer token as it came; empty where there was none.

        Raises:
            ApiError: 401, in the same words whatever is wrong with it.
        """
        if not key:
            raise _refused("no API key was given")
        parts = split(key.decode("latin-1"))
        name, secret = parts or ("", "")
        # An id that nobody has takes as long as a wrong secret.
        entry = self._entries.get(name, _NOBODY)
        if not entry.is_of(secret) or entry is _NOBODY or not entry.valid_at(self._clock()):
            # OpenAI's words first: LiteLLM knows a wrong key by them alone.
            raise _refused("Incorrect API key provided: it is not valid here, or no longer")
        return entry


def _entry(path: Path, size: int) -> KeyEntry:
    if size > MOST_BYTES:
        raise ValueError("too long")
    entry = KeyEntry.model_validate_json(path.read_bytes())
    if entry.id != path.stem:
        raise ValueError("it has another id than its file")
    return entry


def _refused(why: str) -> ApiError:
    return ApiError(
        401, f"{why}; send the header `Authorization: Bearer lm-…` with a key of this endpoint",
        code="invalid_api_key", headers={"www-authenticate": "Bearer"},
    )  # fmt: skip
