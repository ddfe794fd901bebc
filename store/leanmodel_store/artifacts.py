"""The content-addressed store: what a step made is there whole under its key, or not at all.

Layout below the root, all on one file system::

    objects/HEX/files/…          an artifact's files (read-only), named by the digest of their content
    objects/HEX/manifest.json    their names, sizes and sha256; the first key, and its meta
    keys/KEY.json                which artifact a step's inputs led to, and that step's meta
    staging/ID/, staging/ID.lock work under way; whose lock nobody holds is left over and is removed
    scratch/KEY/                 checkpoints of an unfinished step, which outlive a kill
    locks/KEY.lock               so that two Jobs do not do the same work twice
    use.lock                     shared by all Jobs at work; a sweep takes it alone

A folder becomes an artifact by one rename, a key appears by another; before each, everything it stands for is
on the disk. So a kill (or a power cut) between any two instructions leaves either nothing or all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leanmodel_api.errors import InputError, one

from . import digests, disk, locks, names
from .digests import FileRecord

USE_LOCK = "use.lock"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Entry:
    """A finished artifact.

    Attributes:
        digest: ``sha256:…`` of the sorted list of (name, size, sha256) of its files; ``meta`` is not in it.
        key: the key that it was found by (from :meth:`Store.open`: the one it was first made for).
        path: the folder with its files, and nothing else; never write there.
        meta: what the step noted about it.
        bytes: size of all files together.
        files: the records of its files, sorted by name.
    """

    digest: str
    key: str
    path: Path
    meta: dict[str, Any]
    bytes: int
    files: tuple[FileRecord, ...] = field(repr=False)


class Store:
    """A folder of artifacts; several processes may use it at once."""

    def __init__(self, root: Path):
        """Use (and make, where missing) the folder ``root``.

        Raises:
            InputError: the folder cannot be made or written to.
        """
        self.root = Path(root).absolute()
        try:
            for name in ("objects", "keys", "staging", "scratch", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise one(
                InputError, "spec.store.uri", f"the folder {self.root} cannot be used: {error.strerror}",
                "name a folder that may be written to",
            ) from error  # fmt: skip

    def find(self, key: str) -> Entry | None:
        """Return the finished output of a step by its key, or None.

        An artifact with a missing file or one of another size counts as absent: the step is then done again,
        and its commit puts a whole one in place.
        """
        record = self._key_record(key)
        if record is None:
            return None
        entry = self._load(record["digest"])
        if entry is None:
            return None
        self._touch(entry.digest)
        return Entry(entry.digest, key, entry.path, record["meta"], entry.bytes, entry.files)

    def recorded(self, key: str) -> str | None:
        """Return the digest that a key once led to, even if the artifact is gone; None when never."""
        record = self._key_record(key)
        return None if record is None else str(record["digest"])

    def open(self, digest: str, *, verify: bool = False) -> Entry:
        """Return an artifact by its digest.

        Args:
            digest: ``sha256:…`` as in :attr:`Entry.digest`.
            verify: read every file and hold it against its sha256.

        Raises:
            InputError: it is not there, or it is damaged.
        """
        entry = self._load(digest)
        if entry is None:
            raise one(
                InputError, "artifact", f"{digest} is not (or not whole) in the store {self.root}",
                "run the step that makes it again",
            )  # fmt: skip
        if verify:
            self.verify(entry)
        return entry

    def verify(self, entry: Entry) -> None:
        """Read all files of an artifact and hold them against their digests.

        Raises:
            InputError: a file was changed; the message names it. The artifact no longer counts as present.
        """
        for record in entry.files:
            found = digests.of_file(entry.path / record.name)
            if found != record.sha256:
                self._discard(entry.digest)
                raise one(
                    InputError, str(entry.path / record.name),
                    f"the file was changed in the store: sha256 {found} instead of {record.sha256}",
                    "run again: the damaged artifact was removed and is made anew",
                )  # fmt: skip

    @contextmanager
    def staging(self, key: str) -> Iterator[Staging]:
        """Open an empty folder in which the output of the step ``key`` is made.

        Commit it inside the block; whatever was not committed is removed at its end.

        Raises:
            RefusedError: the disk filled up inside the block.
        """
        self.clean()
        folder = self.root / "staging" / uuid.uuid4().hex
        lock = folder.with_suffix(".lock")
        handle = locks.acquire(lock, wait=True)
        assert handle is not None
        try:
            with disk.refusing_when_full(self.root, folder):
                (folder / "files").mkdir(parents=True)
                yield Staging(self, key, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
            os.close(handle)

    def scratch(self, key: str) -> Path:
        """Return the folder for checkpoints of an unfinished step: it outlives kills, until the commit."""
        folder = self.root / "scratch" / _file_name(key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def in_use(self) -> AbstractContextManager[None]:
        """Say during the block that a Job is at work here: nothing is swept meanwhile."""
        return locks.held(self.root / USE_LOCK, shared=True)

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Hold the key's lock during the block, waiting for another Job that has it. Not re-entrant."""
        return locks.held(self.root / "locks" / f"{_file_name(key)}.lock")

    def clean(self) -> int:
        """Remove what dead processes left in staging; return how many folders that were."""
        removed = 0
        staging = self.root / "staging"
        for stem in {path.name.partition(".")[0] for path in staging.iterdir()}:
            lock = staging / f"{stem}.lock"
            handle = locks.acquire(lock, wait=False)
            if handle is None:
                continue
            try:
                (staging / f"{stem}.link").unlink(missing_ok=True)
                shutil.rmtree(staging / stem, ignore_errors=True)
                lock.unlink(missing_ok=True)
                removed += 1
            finally:
                os.close(handle)
        return removed

    def _key_record(self, key: str) -> dict[str, Any] | None:
        record = _read_json(self.root / "keys" / f"{_file_name(key)}.json")
        if record is None or record.get("key") != key or not isinstance(record.get("meta"), dict):
            return None
        return record if _DIGEST.fullmatch(str(record.get("digest"))) else None

    def _object(self, digest: str) -> Path:
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise one(InputError, "artifact", f"{digest!r} is no digest", "write sha256: and 64 hex digits")
        return self.root / "objects" / match[1]

    def _load(self, digest: str) -> Entry | None:
        """Return the artifact when its manifest fits its digest and every file is there with its size."""
        folder = self._object(digest)
        manifest = _read_json(folder / "manifest.json")
        if manifest is None:
            return None
        try:
            records = tuple(FileRecord(str(n), int(s), str(h)) for n, s, h in manifest["files"])
            key, meta = str(manifest["key"]), dict(manifest["meta"])
        except (KeyError, TypeError, ValueError):
            return None
        if digests.of_records(records) != digest:
            return None
        files = folder / "files"
        for record in records:
            if names.fault(record.name):
                return None
            try:
                status = os.lstat(files / record.name)
            except OSError:
                return None
            if status.st_size != record.size or not stat.S_ISREG(status.st_mode):
                return None
        return Entry(digest, key, files, meta, sum(record.size for record in records), records)

    def _touch(self, digest: str) -> None:
        """Note that an artifact is wanted again: a sweep spares what is younger than its list of what to keep."""
        with suppress(OSError):  # a store that is only read is not swept from here either
            os.utime(self._object(digest) / "manifest.json")

    def _discard(self, digest: str) -> None:
        """Take a damaged artifact out of sight by one rename, then remove it."""
        aside = self.root / "staging" / uuid.uuid4().hex
        try:
            os.rename(self._object(digest), aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    def _place(self, folder: Path, digest: str) -> Entry:
        """Rename a finished folder to its digest; a whole artifact that is there already wins."""
        target = self._object(digest)
        while True:
            entry = self._load(digest)
            if entry is not None:
                self._touch(digest)
                return entry
            try:
                os.rename(folder, target)
            except OSError:
                if not target.exists():
                    raise
                # Another process was first, or a damaged one stands there: look again, or set it aside.
                if self._load(digest) is None:
                    self._discard(digest)
                continue
            disk.sync_folder(target.parent)


class Staging:
    """A folder in the making; write below :attr:`path`, then :meth:`commit`."""

    def __init__(self, store: Store, key: str, folder: Path):
        """Belong to ``store``; ``folder`` holds files/ and is renamed as a whole."""
        self._store = store
        self._folder = folder
        self.key = key
        self.path = folder / "files"

    def commit(self, meta: dict[str, Any]) -> Entry:
        """Make the folder an artifact, and the key lead to it.

        Args:
            meta: facts about the step as JSON values; not part of the digest.

        Returns:
            The entry; its path is the artifact's, the staging folder is gone.

        Raises:
            InputError: the folder is empty, or holds links, special files or names that cannot be kept.
            RefusedError: the disk is full.
        """
        store = self._store
        with disk.refusing_when_full(store.root, self._folder):
            records = self._seal()
            digest = digests.of_records(records)
            rows = [[record.name, record.size, record.sha256] for record in records]
            manifest = {"digest": digest, "files": rows, "key": self.key, "meta": meta}
            disk.write_atomic(self._folder / "manifest.json", _json(manifest))
            entry = store._place(self._folder, digest)
            link = {"digest": digest, "key": self.key, "meta": meta}
            target = store.root / "keys" / f"{_file_name(self.key)}.json"
            disk.write_atomic(target, _json(link), fresh=self._folder.with_suffix(".link"))
        shutil.rmtree(store.root / "scratch" / _file_name(self.key), ignore_errors=True)
        return Entry(digest, self.key, entry.path, json.loads(_json(meta)), entry.bytes, entry.files)

    def _seal(self) -> list[FileRecord]:
        """Make all files read-only and durable, and return their records."""
        found = digests.files_below(self.path)
        if not found:
            raise one(
                InputError, self.key, "the step made nothing: its folder is empty", "report this defect"
            )
        for name in found:
            os.chmod(self.path / name, 0o444)
            disk.sync_file(self.path / name)
        for where, _, _ in os.walk(self.path):
            disk.sync_folder(Path(where))
        return digests.record_folder(self.path)


def _file_name(key: str) -> str:
    """Return a key as a file name; one that is not plain (or could leave the folder) becomes its hash."""
    if _PLAIN.fullmatch(key):
        return key
    return "~" + hashlib.sha256(key.encode()).hexdigest()


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None when there is none or it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None
