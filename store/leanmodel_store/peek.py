"""A look at a model's configuration before anything is fetched: for estimates, which must cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leanmodel_api.errors import InputError, one
from leanmodel_api.sources import Source

from .artifacts import Store
from .schemes import SCHEMES
from .schemes.base import Kind, Request
from .schemes.file import locate
from .schemes.hf import configuration
from .sources import source_key


def here(source: Source, base_dir: Path, store: Store, kind: Kind, field: str) -> bool:
    """Say whether a source's files are on this machine: a ``file:``, or fetched earlier."""
    return source.scheme == "file" or _held(source, base_dir, store, kind, field) is not None


def look(source: Source, base_dir: Path, store: Store, field: str, also: Sequence[str] = ()) -> Path:
    """Return a folder with a model's ``config.json``, or a GGUF file, whose header says it; no weights are fetched.

    Args:
        source: what the manifest says.
        base_dir: folder that relative ``file:`` addresses start from.
        store: where the model may lie already.
        field: the manifest's field of the source, for messages.
        also: further small files that are wanted beside it where a hub has them.

    Raises:
        InputError: there is none, or it cannot be had without the weights.
    """
    held = _held(source, base_dir, store, "model", field)
    if held is not None:
        return held
    request = _request(source, base_dir, "model", field)
    if source.scheme == "hf":
        return configuration(request, also)
    if source.scheme != "file":
        raise one(
            InputError, f"{field}.uri",
            f"{source.uri} is not in the store, and its configuration cannot be had without its weights",
            "fetch it first with `leanmodel compress`, or name hf:// or file:",
        )  # fmt: skip
    path = locate(request)[0]
    inner = path / source.path if source.path and path.is_dir() else path
    return inner.parent if inner.is_file() and inner.suffix != ".gguf" else inner


def _held(source: Source, base_dir: Path, store: Store, kind: Kind, field: str) -> Path | None:
    """Return the folder of a source's copy in the store, its bytes not read again; None where there is none."""
    scheme = SCHEMES.get(source.scheme)
    if scheme is None:
        return None
    entry = store.find(source_key(scheme, _request(source, base_dir, kind, field)))
    return entry.path if entry is not None else None


def _request(source: Source, base_dir: Path, kind: Kind, field: str) -> Request:
    def no_scratch() -> Path:
        raise AssertionError("nothing is fetched by a look")

    return Request(source, Path(base_dir), kind, field, lambda *_: None, no_scratch)
