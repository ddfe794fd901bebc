"""What a plan changes: the writes that are left when all that is equal already is taken out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .observed import Key, Observed
from .plan import Plan, Ref
from .served import covers

Verb = Literal["create", "apply", "delete", "status"]


@dataclass(frozen=True)
class Write:
    """One write.

    Attributes:
        version: resourceVersion of what was seen; the write fails where it is no longer that.
    """

    verb: Verb
    key: Key
    body: dict[str, Any] | None = None
    version: str = ""
    ref: Ref | None = None


def writes(plan: Plan, body: Mapping[str, Any], seen: Observed) -> list[Write]:
    """Return the writes that bring what was seen to what is planned, in order; none when it is there.

    Args:
        body: the LeanModel as the API server has it.
    """
    found: list[Write] = []
    for item in plan.creates:
        key = (str(item["kind"]), str(item["metadata"]["name"]))
        if key not in seen.objects:
            found.append(Write("create", key, item))
    for item in plan.applies:
        key = (str(item["kind"]), str(item["metadata"]["name"]))
        present = seen.objects.get(key)
        if _going(present):  # its name is free soon; until then nothing that is written to it would stay
            continue
        if present is None or not covers(present, item):
            version = str(present["metadata"].get("resourceVersion", "")) if present else ""
            found.append(Write("apply", key, item, version))
    for ref in plan.deletes:
        present = seen.objects.get((ref.kind, ref.name))
        if present is not None and not _going(present):
            found.append(Write("delete", (ref.kind, ref.name), ref=ref))
    if plan.status is not None and plan.status != body.get("status"):
        meta = body["metadata"]
        version = str(meta.get("resourceVersion", ""))
        found.append(Write("status", ("LeanModel", str(meta["name"])), plan.status, version))
    return found


def _going(item: Mapping[str, Any] | None) -> bool:
    return item is not None and "deletionTimestamp" in item["metadata"]
