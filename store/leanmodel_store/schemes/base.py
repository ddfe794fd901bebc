"""What every scheme is asked for, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from leanmodel_api.sources import Source

from ..artifacts import Entry
from ..choose import Choice, Shards, choose_data, choose_model

Kind = Literal["model", "data"]
Progress = Callable[[int, int], None]
"""Takes the bytes done and the bytes in all (0 while unknown)."""


@dataclass(frozen=True)
class Request:
    """A source to be fetched.

    Attributes:
        source: what the manifest says.
        base_dir: folder that relative ``file:`` addresses start from.
        kind: whether a model's files are wanted, or the one file of a data set.
        field: the manifest's field of the source, for messages.
        on_progress: told about bytes as they come.
        scratch: makes a folder that outlives a kill, for downloads that can be taken up again.
    """

    source: Source
    base_dir: Path
    kind: Kind
    field: str
    on_progress: Progress
    scratch: Callable[[], Path]

    def choose(self, listing: list[str], shards: Shards) -> Choice:
        """Return the files of the listing that are wanted."""
        if self.kind == "data":
            return choose_data(listing, self.source.path, self.field)
        return choose_model(listing, self.source.path, shards, self.field)


class Scheme(Protocol):
    """One kind of address."""

    def identity(self, request: Request) -> str:
        """Return the address in full: with the same identity, the same bytes are meant.

        Raises:
            InputError: the address is malformed.
        """
        ...

    def current(self, request: Request, entry: Entry) -> bool:
        """Return whether an artifact that was fetched earlier is still what the address stands for."""
        ...

    def fetch(self, request: Request, target: Path) -> dict[str, Any]:
        """Put the wanted files into the empty folder ``target``; return facts for the artifact's meta.

        Raises:
            InputError: the source is not there, not allowed, or not what it claims to be.
        """
        ...
