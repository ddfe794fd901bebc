"""Digests of files and of folders; equal content gives equal digests, whatever the folder's name or times."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from leanmodel_api.errors import InputError, one

from . import names

CHUNK = 2**20


@dataclass(frozen=True, order=True)
class FileRecord:
    """One file of an artifact: its name relative to the folder, its bytes, and their sha256 in hex."""

    name: str
    size: int
    sha256: str


def of_file(path: Path) -> str:
    """Return a file's sha256 in hex."""
    sha = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def of_records(records: Iterable[FileRecord]) -> str:
    """Return ``sha256:…`` of the sorted list of (name, size, sha256)."""
    rows = [[record.name, record.size, record.sha256] for record in sorted(records)]
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def files_below(folder: Path) -> list[str]:
    """Return the sorted relative names of all regular files below ``folder``.

    Raises:
        InputError: a link, a special file, or a name that could not be kept safely is among them.
    """
    found: list[str] = []
    for where, folders, files in os.walk(folder):
        for entry in [*folders, *files]:
            path = Path(where, entry)
            name = path.relative_to(folder).as_posix()
            mode = os.lstat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                raise one(InputError, name, f"{kind} is not kept in the store", "put the file itself there")
            if problem := names.fault(name):
                raise one(InputError, repr(name), f"the name cannot be kept: {problem}", "rename the file")
            if stat.S_ISREG(mode):
                found.append(name)
    return sorted(found)


def record_folder(folder: Path) -> list[FileRecord]:
    """Return the records of all files below ``folder``, sorted by name; reads every byte."""
    paths = {name: folder / name for name in files_below(folder)}
    return [FileRecord(name, path.stat().st_size, of_file(path)) for name, path in paths.items()]
