"""``file:PATH``: a file or a folder on this machine, relative to the manifest's folder unless absolute."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

from leanmodel_api.errors import InputError, one

from .. import disk, names
from ..artifacts import Entry
from ..choose import Choice
from ..digests import CHUNK, of_file
from .base import Request, Scheme


class _File:
    def identity(self, request: Request) -> str:
        """Return the absolute path; the same file under another manifest's folder is another source."""
        return f"file:{locate(request)[0]}"

    def current(self, request: Request, entry: Entry) -> bool:
        """Return whether the files are still those of the artifact; reads them, as times can be forged."""
        folder, choice = _select(request)
        sizes = {choice.target(name): (folder / name).stat().st_size for name in choice.names}
        if sizes != {record.name: record.size for record in entry.files}:
            return False
        found = {choice.target(name): of_file(folder / name) for name in choice.names}
        return found == {record.name: record.sha256 for record in entry.files}

    def fetch(self, request: Request, target: Path) -> dict[str, Any]:
        """Copy the wanted files."""
        folder, choice = _select(request)
        total = sum((folder / name).stat().st_size for name in choice.names)
        disk.require_free(target, total, what=f"the copy of {request.source.uri}")
        done = 0
        for name in choice.names:
            to = target / choice.target(name)
            to.parent.mkdir(parents=True, exist_ok=True)
            done = _copy(folder / name, to, request, done, total)
        return {}


SCHEME: Scheme = _File()


def locate(request: Request) -> tuple[Path, Path]:
    """Return the path that the address names, and the folder which links below it may lead to.

    Raises:
        InputError: a relative address leaves the manifest's folder, or nothing is there.
    """
    text = request.source.uri.removeprefix("file:")
    if text.startswith("//"):
        host, _, rest = text[2:].partition("/")
        if host not in ("", "localhost") or not rest:
            raise _leaves(request, "the part after file:// is a host's name")
        text = "/" + rest
    if not text or "\0" in text:
        raise _leaves(request, "it names no path")
    base = request.base_dir.absolute()
    path = Path(text)
    if not path.is_absolute():
        if ".." in path.parts or not names.inside(base, base / path):
            raise _leaves(request, f"the path leaves its folder {base}")
        path = base / path
    path = Path(os.path.normpath(path))
    if not path.exists():
        raise one(
            InputError, f"{request.field}.uri", f"there is no file or folder {path}",
            "correct the path; a relative one starts at the manifest's folder",
        )  # fmt: skip
    if not Path(text).is_absolute():
        return path, base
    folder = path if path.is_dir() else path.resolve().parent
    # A snapshot of the hub's cache is made of links into its repository's folder.
    return path, folder.parent.parent if folder.parent.name == "snapshots" else folder


def _select(request: Request) -> tuple[Path, Choice]:
    """Return the source's folder and the files in it that are wanted.

    Raises:
        InputError: as :func:`locate`, or a wanted file is a link out of the folder.
    """
    path, allowed = locate(request)
    folder, listing = (path, _listing(path)) if path.is_dir() else (path.parent, _siblings(path))
    if path.is_file():
        inner = names.clean(request.source.path or "")
        if inner not in ("", path.name):
            raise one(
                InputError, f"{request.field}.path", f"{inner!r} is given, and {path.name} is one file",
                "leave `path` out, or name the folder in `uri`",
            )  # fmt: skip
        request = replace(request, source=request.source.model_copy(update={"path": path.name}))
    choice = request.choose(listing, lambda index: shards_of((folder / index).read_bytes()))
    for name in choice.names:
        if not names.inside(allowed, folder / name):
            raise one(
                InputError, request.field, f"{name} is a link that leaves its folder {allowed}",
                "put the file itself there",
            )  # fmt: skip
    return folder, choice


def _leaves(request: Request, why: str) -> InputError:
    return one(
        InputError, f"{request.field}.uri", f"{request.source.uri!r} cannot be used: {why}",
        "write file:PATH, absolute, or below the manifest's folder (no '..', no link out of it)",
    )  # fmt: skip


def _siblings(path: Path) -> list[str]:
    """Return the files of a file's folder: weights bring their configuration along."""
    return sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())


def _listing(folder: Path) -> list[str]:
    """Return the names of all regular files (links to such included) below a folder; hidden ones left out."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(where, name)
            if not name.startswith(".") and path.is_file() and stat.S_ISREG(path.stat().st_mode):
                found.append(path.relative_to(folder).as_posix())
    return found


def shards_of(index: bytes) -> list[str]:
    """Return the distinct shards that a safetensors index names; none when it is damaged."""
    try:
        return sorted({str(name) for name in json.loads(index)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _copy(path: Path, to: Path, request: Request, done: int, total: int) -> int:
    """Copy one file and report on the way; return the bytes done so far."""
    with open(path, "rb") as reader, open(to, "xb") as writer:
        while chunk := reader.read(CHUNK):
            writer.write(chunk)
            done += len(chunk)
            request.on_progress(done, total)
    return done
