"""What a log and a ConfigMap of inputs say. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from leanmodel_api.progress import PREFIX, ProgressLine, parse

from ..jobshell import RESULT_PREFIX
from . import volumes
from .observed import LogSeen


def read_log(text: str, before: LogSeen) -> LogSeen:
    """Return the last progress and the packed result in the end of a log."""
    progress: ProgressLine | None = before.progress
    packed = before.packed
    for line in text.splitlines():
        if line.startswith(PREFIX):
            progress = parse(line) or progress
        elif line.startswith(RESULT_PREFIX):
            packed = line.removeprefix(RESULT_PREFIX).strip()
    return LogSeen(progress, packed)


def digest_inputs(
    found: dict[str, Any] | None, where: volumes.Inputs, namespace: str
) -> tuple[str | None, str]:
    """Return the digest of the files that a ConfigMap of inputs holds, and what is missing in words."""
    make = f"kubectl -n {namespace} create configmap {where.config_map} " + " ".join(
        f"--from-file={path.rsplit('/', 1)[-1]}={path}" for path in where.files
    )
    if found is None:
        return None, (
            f"file:{where.files[0]} is looked for in ConfigMap {where.config_map}, which is not there: {make} "
            "(or name another place by the annotation leanmodel.io/inputs)"
        )
    data = {**found.get("data", {}), **found.get("binaryData", {})}
    missing = [path for path in where.files if path.rsplit("/", 1)[-1] not in data]
    if missing:
        return (
            None,
            f"ConfigMap {where.config_map} has no key {missing[0].rsplit('/', 1)[-1]} (for file:{missing[0]}): {make}",
        )
    digest = hashlib.sha256()
    for path in where.files:
        digest.update(json.dumps([path, data[path.rsplit("/", 1)[-1]]]).encode())
    return digest.hexdigest()[:16], ""
