"""The key of a step: the hash of everything that its output depends on, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any


def step_key(
    *,
    type: str,
    version: int,
    settings: Mapping[str, Any],
    source: str,
    teacher: str | None = None,
    data: str | None = None,
    seed: int = 0,
    libraries: Mapping[str, str] | None = None,
) -> str:
    """Return the sha256 (hex) under which a step's output lies in the store.

    Args:
        type: the step's name.
        version: the version of the step's code; raised when its result changes.
        settings: what the manifest says, without what changes the way but not the result.
        source: digest of the model that goes in.
        teacher: digest of the model that teaches, where one does.
        data: digest of the rows that it sees, where it sees any.
        seed: the plan's seed, 0 where nothing is random.
        libraries: versions of the libraries that the result depends on.
    """
    parts = {
        "type": type,
        "version": version,
        "settings": dict(settings),
        "source": source,
        "teacher": teacher,
        "data": data,
        "seed": seed,
        "libraries": dict(libraries or {}),
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of libraries; one that is missing stands as ``absent``."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
