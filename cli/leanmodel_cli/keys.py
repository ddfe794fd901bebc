"""Where API keys are kept: files in a run's folder, or entries of a Secret that kubectl carries. Only hashes are."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from leanmodel_api.errors import InputError, Issue
from leanmodel_api.keys import SUFFIX, KeyEntry
from leanmodel_api.ledger import RedisAt
from leanmodel_operator.cluster import names
from leanmodel_serving.applications import ROUTER_APPLICATION
from leanmodel_serving.ledger.books import Line
from leanmodel_serving.ledger.file import ledger_beside, spent_ever
from leanmodel_serving.ledger.keeper import LedgerDownError
from leanmodel_serving.ledger.redis_store import RedisLedger

from .runs import Run

MANAGER = "leanmodel-key"
"""Field managers of server-side apply are named after this and the key: each owns its own entry and no other."""


def write(folder: Path, entry: KeyEntry) -> None:
    """Put an entry into a folder, readable by its owner alone, so that a reader sees the whole of it or nothing."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = folder / f".{entry.id}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(entry.to_json(indent=1))
    fresh.replace(folder / f"{entry.id}{SUFFIX}")


def remove(folder: Path, name: str) -> None:
    """Take a key's entry away.

    Raises:
        InputError: there is none of that id.
    """
    try:
        (folder / f"{name}{SUFFIX}").unlink()
    except OSError:
        known = ", ".join(entry.id for entry in read(folder)) or "none"
        raise InputError(
            Issue(name, "is no key of this LeanModel", f"write one of the ids that it has: {known}")
        ) from None


def read(folder: Path) -> list[KeyEntry]:
    """Return the entries of a folder, the oldest first; files that are none are left out."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError, ValidationError):
            found.append(KeyEntry.model_validate_json(path.read_bytes()))
    return sorted(found, key=lambda entry: (entry.created, entry.id))


def spent(run: Run) -> dict[str, Line]:
    """Return what was ever spent by key, as the ledger of a run has it; nothing where there is no ledger."""
    path = ledger_beside(str(run.state))
    try:
        if (where := _redis(run)) is not None:
            return RedisLedger(where).spent_ever()
        return spent_ever(path) if path is not None and path.exists() else {}
    except (sqlite3.Error, LedgerDownError):  # the router says what is wrong with it
        return {}


def _redis(run: Run) -> RedisAt | None:
    """Return the Redis that a run's router keeps its ledger in; None where a file does."""
    try:
        applications = json.loads(run.desired.read_text())["applications"]
        found = next(one["args"].get("redis") for one in applications if one["name"] == ROUTER_APPLICATION)
    except (OSError, ValueError, KeyError, StopIteration):
        return None
    return None if found is None else RedisAt.model_validate(found)


def secret(name: str, namespace: str, entry: KeyEntry | None) -> dict[str, Any]:
    """Return the Secret of a LeanModel's keys with one entry, or with none: applied by that key's field manager.

    Args:
        name: of the LeanModel.
        entry: what the key's manager shall own in it; None takes its entry away.
    """
    data = {} if entry is None else {f"{entry.id}{SUFFIX}": _base64(entry.to_json())}
    return {
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": names.child(name, "keys"), "namespace": namespace}, "data": data,
    }  # fmt: skip


def apply_command(name: str) -> str:
    """Return how a key's Secret is applied: with a manager of its own, which leaves all other keys alone."""
    return f"kubectl apply --server-side --field-manager={MANAGER}-{name} -f -"


def of_secret(text: str) -> list[KeyEntry]:
    """Return the entries of a Secret as kubectl prints it (YAML or JSON), the oldest first.

    Raises:
        InputError: it is no Secret, or has an entry that is none.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        document = None
    if not isinstance(document, dict) or document.get("kind") != "Secret":
        advice = "pipe `kubectl get secret lm-NAME-keys -o yaml` into it"
        raise InputError(Issue("(standard input)", "is no Secret", advice))
    found = list(_entries(document.get("data") or {}))
    return sorted(found, key=lambda entry: (entry.created, entry.id))


def _entries(data: dict[str, Any]) -> Iterable[KeyEntry]:
    for name, value in data.items():
        try:
            yield KeyEntry.model_validate_json(base64.b64decode(str(value)))
        except ValueError:
            raise InputError(
                Issue(f"data.{name}", "is no key's entry", "remove it from the Secret")
            ) from None


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
