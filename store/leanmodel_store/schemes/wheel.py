"""A wheel as a carrier of files: read as the zip that it is, never installed, held to its own RECORD.

The RECORD's form is that of the packaging specifications ("Recording installed projects"): rows of name,
``algorithm=urlsafe-base64-without-padding`` and size, for every file but the RECORD itself.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import names
from ..digests import CHUNK

ALGORITHMS = ("sha256", "sha384", "sha512")
LARGEST_TEXT = 64 * 2**20
"""Bytes of a RECORD or an index at most: they are read into memory."""


class WheelError(Exception):
    """The wheel is damaged, tampered with, or would write where it must not."""


@dataclass(frozen=True)
class Recorded:
    """A row of the RECORD: the hash's name, its bytes, and the file's size (None when not stated)."""

    algorithm: str
    digest: bytes
    size: int | None


class Wheel:
    """An opened wheel; use as a context manager."""

    def __init__(self, path: Path):
        """Open it and check every name and the RECORD's rows; no file's bytes are read yet.

        Raises:
            WheelError: it is no zip, a name leaves the folder or stands twice, a link is inside, or the
                RECORD is missing, malformed or incomplete.
        """
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise WheelError(f"it is not a zip archive ({error})") from error
        try:
            self.sizes = {info.filename: info.file_size for info in self._members()}
            self._record = self._read_record()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Wheel:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._zip.close()

    def read(self, name: str) -> bytes:
        """Return a small file's bytes, verified."""
        buffer = io.BytesIO()
        self._stream(name, buffer.write, LARGEST_TEXT)
        return buffer.getvalue()

    def extract(self, name: str, to: Path) -> None:
        """Write one file, verified against the RECORD while it streams.

        Raises:
            WheelError: its bytes are not those of the RECORD.
        """
        to.parent.mkdir(parents=True, exist_ok=True)
        with open(to, "xb") as writer:
            self._stream(name, writer.write, self.sizes[name])

    def _members(self) -> list[zipfile.ZipInfo]:
        seen: set[str] = set()
        members = []
        for info in self._zip.infolist():
            if info.is_dir():
                continue
            if problem := names.fault(info.filename):
                raise WheelError(f"the name {info.filename!r} cannot be used: {problem}")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise WheelError(f"{info.filename} is a symbolic link")
            if info.flag_bits & 0x1:
                raise WheelError(f"{info.filename} is encrypted")
            if info.filename in seen:
                raise WheelError(f"{info.filename} is in it twice")
            seen.add(info.filename)
            members.append(info)
        return members

    def _read_record(self) -> dict[str, Recorded]:
        found = [name for name in self.sizes if name.endswith(".dist-info/RECORD") and name.count("/") == 1]
        if len(found) != 1:
            raise WheelError(f"it has {len(found)} RECORD files instead of one")
        if self.sizes[found[0]] > LARGEST_TEXT:
            raise WheelError("its RECORD is too large")
        try:
            text = self._zip.read(found[0]).decode("utf-8")
            rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
        except (zipfile.BadZipFile, UnicodeDecodeError, csv.Error, OSError) as error:
            raise WheelError(f"its RECORD cannot be read ({error})") from error
        record: dict[str, Recorded] = {}
        for row in rows:
            if len(row) == 3 and row[1]:
                record[row[0]] = _parsed(row)
        unsigned = {found[0], f"{found[0]}.jws", f"{found[0]}.p7s"}
        if missing := sorted(set(self.sizes) - set(record) - unsigned):
            raise WheelError(f"its RECORD has no hash of {', '.join(missing[:5])}")
        return record

    def _stream(self, name: str, write: Callable[[bytes], int], most: int) -> None:
        wanted = self._record[name]
        sha = hashlib.new(wanted.algorithm)
        size = 0
        try:
            with self._zip.open(name) as reader:
                while chunk := reader.read(CHUNK):
                    size += len(chunk)
                    if size > most:
                        raise WheelError(f"{name} is larger than {most} bytes")
                    sha.update(chunk)
                    write(chunk)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
            raise WheelError(f"{name} cannot be unpacked ({error})") from error
        if sha.digest() != wanted.digest or wanted.size not in (None, size):
            raise WheelError(f"{name} is not the file that its RECORD states ({wanted.algorithm} differs)")


def _parsed(row: list[str]) -> Recorded:
    algorithm, _, text = row[1].partition("=")
    if algorithm not in ALGORITHMS:
        raise WheelError(f"its RECORD uses {algorithm!r} for {row[0]}; {', '.join(ALGORITHMS)} are accepted")
    try:
        digest = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return Recorded(algorithm, digest, int(row[2]) if row[2] else None)
    except ValueError as error:
        raise WheelError(f"its RECORD has a malformed row for {row[0]}") from error
