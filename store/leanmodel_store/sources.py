"""Fetching: from a source in a manifest to a verified artifact in the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from leanmodel_api.errors import InputError, one
from leanmodel_api.sources import SUPPORTED_SCHEMES, Source

from . import digests, formats
from .artifacts import Entry, Store
from .digests import FileRecord
from .formats import pickles
from .schemes import SCHEMES
from .schemes.base import Kind, Request, Scheme

VERSION = 1
"""Raised when the choice of files changes: what an older version chose is then fetched again."""


def fetch(
    source: Source,
    base_dir: Path,
    store: Store,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    kind: Kind = "model",
    field: str = "source",
) -> Entry:
    """Return a source's files as an artifact of the store, fetched now or earlier, verified either way.

    For a model these are its weights (safetensors or GGUF), configuration and tokenizer; for data one file.
    ``source.digest`` is held; without it, the digest of the first fetch is.

    Args:
        source: what the manifest says.
        base_dir: folder that relative ``file:`` addresses start from (the manifest's).
        store: where the artifact goes.
        on_progress: told (bytes done, bytes in all; 0 while unknown).
        kind: ``model`` or ``data``.
        field: the manifest's field of the source, such as ``spec.large.source``, for messages.

    Returns:
        The artifact; ``meta`` has ``uri`` and what the scheme noted (revision, wheel's sha256, …).

    Raises:
        InputError: not there, a digest that differs, a pickle, a path that leaves its folder, ….
        RefusedError: too little disk.
    """
    scheme = SCHEMES.get(source.scheme)
    if scheme is None:
        raise one(
            InputError, f"{field}.uri", f"{source.uri!r}: the scheme {source.scheme!r} is not supported yet",
            f"write an address that begins with {', '.join(name + ':' for name in SUPPORTED_SCHEMES)}",
        )  # fmt: skip
    if kind == "model" and source.path is not None and pickles.is_name(source.path):
        raise one(
            InputError, f"{field}.path", f"{source.path} is a pickle by its name, and would run code",
            pickles.ADVICE,
        )  # fmt: skip
    if source.revision is not None and source.scheme != "hf":
        raise one(
            InputError,
            f"{field}.revision",
            f"{source.revision!r} is given, and {source.scheme}: has no revisions",
            "leave it out; a version or a digest says which bytes are meant",
        )
    report = on_progress or (lambda done, total: None)
    request = Request(source, Path(base_dir), kind, field, report, lambda: store.scratch(key))
    key = source_key(scheme, request)
    with store.lock(key):
        entry = _held(scheme, request, store, key)
        if entry is not None:
            request.on_progress(entry.bytes, entry.bytes)
            return entry
        return _fetch(scheme, request, store, key)


def source_key(scheme: Scheme, request: Request) -> str:
    """Return the key under which a source's artifact stands; the expected digest is not part of it."""
    parts = [VERSION, request.kind, scheme.identity(request), request.source.revision, request.source.path]
    return "source-" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def matches(digest: str, files: tuple[FileRecord, ...], whole: str) -> bool:
    """Return whether a digest is that of the files: of the manifest of all, or of the only file."""
    return digest == whole or (len(files) == 1 and digest == f"sha256:{files[0].sha256}")


def _held(scheme: Scheme, request: Request, store: Store, key: str) -> Entry | None:
    """Return the copy in the store where it is as good as asking again, its bytes read and verified."""
    entry = store.find(key)
    wanted = request.source.digest
    if entry is None or (wanted is not None and not matches(wanted, entry.files, entry.digest)):
        return None
    if not scheme.current(request, entry):
        return None
    try:
        store.verify(entry)
    except InputError:
        return None  # damaged, and no longer visible: fetched anew, and held to the recorded digest
    return entry


def _fetch(scheme: Scheme, request: Request, store: Store, key: str) -> Entry:
    """Fetch into staging, check every file and the digest, and commit."""
    with store.staging(key) as staged:
        facts = scheme.fetch(request, staged.path)
        if request.kind == "model":
            for name in digests.files_below(staged.path):
                formats.check(staged.path / name, name, request.field)
        else:
            for name in digests.files_below(staged.path):
                if problem := pickles.fault(staged.path / name):
                    advice = "write the rows as TSV, CSV or JSONL"
                    raise one(InputError, request.field, f"{name} {problem}", advice)
        files = tuple(digests.record_folder(staged.path))
        # A file of rows is its owner's to edit: other rows make other parts and so other work, never a mixture.
        mine = request.kind == "data" and request.source.scheme == "file"
        _hold(request, files, None if mine else store.recorded(key))
        return staged.commit({"uri": request.source.uri, "kind": request.kind, **facts})


def _hold(request: Request, files: tuple[FileRecord, ...], recorded: str | None) -> None:
    """Refuse bytes that are not the expected ones: ``source.digest``, or those of the first fetch."""
    whole = digests.of_records(files)
    short = f"sha256:{files[0].sha256}" if len(files) == 1 else whole
    wanted = request.source.digest
    if wanted is not None:
        if not matches(wanted, files, whole):
            raise one(
                InputError, f"{request.field}.digest",
                f"{wanted} is expected, and {request.source.uri} has {short}: other bytes, or tampered with",
                f"find out why; if the new bytes are right, write `digest: {short}`",
            )  # fmt: skip
    elif recorded is not None and recorded != whole:
        raise one(
            InputError, f"{request.field}.uri",
            f"{request.source.uri} changed since it was first fetched: it has {short} now, and the store "
            f"recorded {recorded}",
            f"restore the old bytes, or accept the new ones with `digest: {short}`",
        )  # fmt: skip
