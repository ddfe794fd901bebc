"""Results line by line: what was done is not done again, and a torn last line counts as not done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Lines:
    """A JSON-lines file; of several lines for one name and key the last one counts."""

    def __init__(self, path: Path):
        """Read what is there."""
        self._path = path
        self._found: dict[tuple[str, str], dict[str, Any]] = {}
        for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                line = json.loads(text)
                self._found[line["row"], line["key"]] = line
            except (ValueError, KeyError, TypeError):
                continue

    def find(self, row: str, key: str) -> dict[str, Any] | None:
        """Return the line of a row as it is defined now, or None."""
        return self._found.get((row, key))

    def all(self) -> list[dict[str, Any]]:
        """Return every line that counts, those of rows as they were defined before included."""
        return list(self._found.values())

    def add(self, line: dict[str, Any]) -> None:
        """Keep a line; it has ``row`` and ``key``."""
        with self._path.open("a", encoding="utf-8") as file:
            # A line that a kill tore is ended first, or it would swallow this one.
            torn = self._path.stat().st_size and not self._path.read_bytes().endswith(b"\n")
            file.write(("\n" if torn else "") + json.dumps(line) + "\n")
        self._found[line["row"], line["key"]] = line
