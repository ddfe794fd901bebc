"""Where a run keeps its things: one folder per LeanModel under the home folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from leanmodel_api.errors import InputError, Issue, ManifestError
from leanmodel_api.manifest import load
from leanmodel_api.resource import LeanModel


def home() -> Path:
    """Return the folder of stores and runs: ``$LEANMODEL_HOME``, or ``~/.leanmodel``."""
    return Path(os.environ.get("LEANMODEL_HOME") or Path.home() / ".leanmodel").absolute()


def read_manifest(path: Path) -> LeanModel:
    """Read one LeanModel from a YAML or JSON file.

    Raises:
        ManifestError: the file is missing, is not YAML, holds several documents, or breaks a rule.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(
            Issue(str(path), f"cannot be read: {error.strerror}", "name a manifest with -f FILE")
        ) from None
    except UnicodeDecodeError:
        raise ManifestError(
            Issue(str(path), "is not text in UTF-8", "name a manifest with -f FILE")
        ) from None
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ManifestError(
            Issue(str(path), f"is not YAML: {error}", "mend the line that is named")
        ) from None
    if len(documents) != 1:
        raise ManifestError(
            Issue(str(path), f"holds {len(documents)} documents", "write one LeanModel per file")
        )
    return load(documents[0])


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def read_json(path: Path) -> Any | None:
    """Return what a JSON file holds, or None when there is none (or none that is whole)."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


@dataclass(frozen=True)
class Run:
    """The folder of one LeanModel's run; every path in it is named here and nowhere else."""

    root: Path

    @classmethod
    def of(cls, name: str, namespace: str = "default") -> Run:
        """Return the run of a LeanModel by its name."""
        return cls(home() / "runs" / f"{namespace}.{name}")

    @property
    def resource(self) -> Path:
        """The resource as applied, and the settings of the run."""
        return self.root / "run.json"

    @property
    def status(self) -> Path:
        """The resource with its status, as a cluster would have it."""
        return self.root / "status.json"

    @property
    def pid(self) -> Path:
        """The supervisor's process and start time."""
        return self.root / "supervisor.json"

    @property
    def serve(self) -> Path:
        """The serve host's folder."""
        return self.root / "serve"

    @property
    def desired(self) -> Path:
        """The Serve applications that should be up."""
        return self.serve / "desired.json"

    @property
    def router(self) -> Path:
        """The router's settings file."""
        return self.serve / "router.json"

    @property
    def token(self) -> Path:
        """The token between router, engines and prove Job; readable by the owner alone."""
        return self.serve / "token"

    @property
    def keys(self) -> Path:
        """The API keys' entries, one file each."""
        return self.root / "keys"

    @property
    def state(self) -> Path:
        """What the router must not forget; the ledger stands beside it."""
        return self.serve / "router-state.db"

    @property
    def report(self) -> Path:
        """The proof, as JSON; the page stands beside it."""
        return self.root / "report.json"

    @property
    def page(self) -> Path:
        """The proof, as a page."""
        return self.root / "report.html"

    def log(self, name: str) -> Path:
        """Return the log file of a Job or of the serve host."""
        return self.root / "logs" / f"{name}.log"

    def plan(self, key: str) -> Path:
        """Return where a Job's plan stands."""
        return self.root / "plans" / f"{key}.json"

    def result(self, key: str) -> Path:
        """Return where a Job's result stands."""
        return self.root / "results" / f"{key}.json"

    def supervisor(self) -> int | None:
        """Return the process id of the supervisor while it lives, else None."""
        record = read_json(self.pid)
        if isinstance(record, dict) and start_time(record.get("pid", 0)) == record.get("started"):
            return int(record["pid"])
        return None


def start_time(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks: tells a process from a later one of its number."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if fields[0] == "Z" else fields[19]
    return None


def only_run(name: str | None, namespace: str) -> Run:
    """Return the run that a command means: the named one, or the only one there is.

    Raises:
        InputError: there is none, or there are several and none is named.
    """
    if name is not None:
        run = Run.of(name, namespace)
        if not run.resource.exists():
            raise InputError(Issue(name, f"has no run in {home()}", "start it with `leanmodel up -f FILE`"))
        return run
    found = sorted(path.parent for path in (home() / "runs").glob("*/run.json"))
    alive = [path for path in found if Run(path).supervisor() is not None] or found
    if len(alive) != 1:
        names = ", ".join(path.name.partition(".")[2] for path in alive)
        raise InputError(
            Issue(
                "NAME",
                f"there are {len(alive)} runs" + (f": {names}" if names else ""),
                "name one" if alive else "start one with `leanmodel up -f FILE`",
            )
        )
    return Run(alive[0])


def file_digest(path: Path) -> str:
    """Return a file's sha256 in hex; an empty string when it cannot be read (the Job says why)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
