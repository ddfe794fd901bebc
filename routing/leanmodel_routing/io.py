"""Reading records and policies from files, with errors that name the line and the field."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from leanmodel_api.errors import InputError, Issue, one
from leanmodel_api.policy import Policy, Record
from leanmodel_api.routing_policy import RoutingPolicy

MOST_ISSUES = 20
_VERSIONS: dict[str, type[Policy]] = {"1": Policy, "2": RoutingPolicy}


def read_records(path: Path | str) -> tuple[list[Record], list[str]]:
    """Records of a JSON-lines file, and notes on it; raises InputError naming line, field, found and
    expected.
    """
    source = Path(path)
    try:
        with source.open(encoding="utf-8") as lines:
            return parse_records(lines, source.name)
    except OSError as error:
        raise one(
            InputError, str(path), f"cannot be read ({error.strerror})", "give a JSON-lines file"
        ) from error
    except UnicodeDecodeError as error:
        raise one(InputError, str(path), f"is not UTF-8 ({error.reason})", "save it as UTF-8") from error


def parse_records(lines: Iterable[str], name: str = "records") -> tuple[list[Record], list[str]]:
    """Records of JSON lines (blank lines are skipped), and notes.

    Keys outside the contract are ignored and named in a note, with the known key that they resemble. Raises
    InputError with up to 20 issues, or where there is no record at all.
    """
    records: list[Record] = []
    issues: list[Issue] = []
    extra: Counter[str] = Counter()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = Record.model_validate_json(line)
        except ValidationError as error:
            issues.extend(_issues(error, f"{name}: line {number}"))
            if len(issues) >= MOST_ISSUES:
                break
            continue
        extra.update((record.model_extra or {}).keys())
        records.append(record)
    if issues:
        raise InputError(issues[:MOST_ISSUES])
    if not records:
        raise one(
            InputError, name, "holds no record", "write one JSON object a line: prompt, lean_quality, …"
        )
    return records, [_extra_note(key, count) for key, count in sorted(extra.items())]


def read_policy(path: Path | str) -> Policy:
    """The policy of a file, of either version: a bare policy, or what `leanmodel calibrate` writes (under
    `policy`).

    Raises InputError where the file is no policy, is of a version that is not known here, or was changed after it
    was certified.
    """
    try:
        content: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise one(InputError, str(path), f"is no readable JSON ({error})", "give a policy file") from error
    if isinstance(content, dict) and isinstance(content.get("policy"), dict):
        content = content["policy"]
    return parse_policy(content, Path(path).name)


def parse_policy(content: Any, name: str = "policy") -> Policy:
    """The policy of plain JSON: a `Policy` of version 1 or a `RoutingPolicy`; raises InputError as `read_policy`."""
    version = str(content.get("version", "1")) if isinstance(content, dict) else "1"
    if version not in _VERSIONS:
        raise one(
            InputError,
            f"{name}: version",
            f"found {version!r}",
            f"expected {' or '.join(_VERSIONS)}: it was written by another LeanModel; calibrate again with this one",
        )
    try:
        return _VERSIONS[version].model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise InputError(_issues(error, name)) from error


def _issues(error: ValidationError, place: str) -> list[Issue]:
    found = []
    for item in error.errors(include_url=False):
        field = ".".join(str(step) for step in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        value = json.dumps(item["input"], default=str)
        value = value if len(value) <= 60 else value[:57] + "..."
        where = f"{place}: {field}" if field else place
        if item["type"] == "missing":
            found.append(Issue(where, "missing", "every record needs prompt, lean_quality and large_quality"))
        elif item["type"] == "json_invalid":
            found.append(Issue(where, f"is no JSON ({text})", "write one JSON object a line"))
        else:
            found.append(Issue(where, f"found {value}", text[:1].lower() + text[1:]))
    return found


def _extra_note(key: str, count: int) -> str:
    near = difflib.get_close_matches(key, list(Record.model_fields), n=1, cutoff=0.8)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"key {key!r} of {count} records is not part of a record and was ignored{hint}"
