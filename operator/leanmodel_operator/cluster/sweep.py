"""What a store still needs, and when the rest is swept. Pure.

The operator mounts no store, so a small Job does the sweeping, where the volume is. Why not a compress Job at its end:
what has lost its last user is mostly found when no Job is wanted any more (a recipe was dropped, a LeanModel of a
shared store was deleted). Which artifacts were needed the last time stands in a ConfigMap per store; only when one of
them is needed no longer is there anything to sweep, so a store at rest costs neither pods nor writes.
Both belong to the store's claim: they go when it goes, and outlive the LeanModels that share it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from . import names, volumes
from .accept import accept
from .children.pods import CONTAINER_SECURITY, pod_security, pull_secrets, scratch
from .mirror import Name
from .observed import Facts, Observed, read
from .settings import Settings
from .volumes import Claim

KINDS = f"{names.SELECTOR},{names.LABEL_KIND} in (store,sweep)"
"""Label selector of all objects that are made here."""


@dataclass(frozen=True)
class Needs:
    """What is needed of one store.

    Attributes:
        busy: whether a Job that may write to it is under way.
    """

    artifacts: frozenset[str] = frozenset()
    reports: frozenset[str] = frozenset()
    busy: bool = False

    def words(self) -> list[str]:
        """Return all marks, as a store's ConfigMap keeps them."""
        return sorted([*self.artifacts, *(f"report:{key}" for key in self.reports)])

    def also(self, other: Needs) -> Needs:
        """Return what two LeanModels of one store need together."""
        return Needs(self.artifacts | other.artifacts, self.reports | other.reports, self.busy or other.busy)


@dataclass(frozen=True)
class Step:
    """What to do about one store.

    Attributes:
        verb: ``note`` writes the ConfigMap, ``sweep`` makes the Job, ``clear`` deletes it.
        body: the object; for ``clear`` as it was seen.
        words: for the log.
    """

    verb: Literal["note", "sweep", "clear"]
    body: dict[str, Any]
    words: str = ""


def needs(
    body: Mapping[str, Any], children: Iterable[dict[str, Any]], settings: Settings
) -> tuple[Claim, Needs] | None:
    """Return a LeanModel's store and what it needs of it; None when its manifest does not say which store that is.

    A recorded result keeps all that it names, the steps on the way included: so an edit of the last step goes on
    from the one before, and a way back to an earlier recipe is free for as long as its result is kept.
    """
    model, _ = accept(dict(body))
    if model is None:
        return None
    seen = read(body, children, Facts())
    reports = {r.key for r in seen.results if r.stage == "prove" and r.text}
    busy = any(job.state in ("Running", "Suspended") for job in seen.jobs)
    return volumes.store(model, settings), Needs(frozenset(_artifacts(seen)), frozenset(reports), busy)


def _artifacts(seen: Observed) -> Iterable[str]:
    for record in seen.results:
        if record.stage.startswith("compress") and record.text:
            result = json.loads(record.text)
            yield result["artifact"]
            yield from (step["artifact"] for step in result.get("steps", ()) if step.get("artifact"))
    if seen.router is not None:
        yield from (b.artifact for b in seen.router.backends() if b.artifact)
    if seen.serve is not None:  # one that has lost its traffic reads its weights until it is gone
        for entry in seen.serve.applications.values():
            folder = str(entry.get("args", {}).get("model", ""))
            if folder.startswith(f"{volumes.STORE_PATH}/objects/"):
                yield f"sha256:{folder.split('/')[3]}"


def together(
    parts: Iterable[tuple[Name, tuple[Claim, Needs] | None]],
) -> dict[tuple[str, str, str], Needs | None]:
    """Return the needs by (namespace, claim, folder); None where a LeanModel of the namespace could use any store."""
    found: dict[tuple[str, str, str], Needs | None] = {}
    unknown: set[str] = set()
    for name, part in parts:
        if part is None:
            unknown.add(name[0])
            continue
        place = (name[0], part[0].name, part[0].folder)
        before = found.get(place)
        found[place] = part[1] if before is None else before.also(part[1])
    return {place: None if place[0] in unknown else wanted for place, wanted in found.items()}


def steps(
    place: tuple[str, str, str],
    wanted: Needs,
    owner: Mapping[str, Any],
    mine: Iterable[Mapping[str, Any]],
    settings: Settings,
    now: datetime,
) -> list[Step]:
    """Return what to do about one store now.

    What is needed no longer is swept ``sweep_grace_seconds`` after that was first seen, and only if nobody has made
    or used it since then: clocks of nodes differ, and a Job may just have found what nobody has recorded again yet.

    Args:
        place: namespace, claim, folder.
        owner: owner reference of its claim.
        mine: ConfigMap and Jobs of this store, as they are.
        now: the time.
    """
    book = next((item for item in mine if item["kind"] == "ConfigMap"), None)
    unneeded = _unneeded(book)
    marks = set(wanted.words())
    noted = set(book["data"].get("needed", "").split()) if book else set()
    job = next((item for item in mine if item["kind"] == "Job"), None)
    if job is not None:
        return _about(job, place, owner, sorted(noted), unneeded)
    changed = {mark: since for mark, since in unneeded.items() if mark not in marks}
    changed |= {mark: _text(now) for mark in sorted(noted - marks)}
    if book is None or noted != marks or changed != unneeded:
        return [Step("note", _book(place, sorted(marks), changed, owner))]
    due = {m: since for m, since in unneeded.items() if _seconds(since, now) >= settings.sweep_grace_seconds}
    if wanted.busy or not due:
        return []
    words = f"sweeping claim {place[1]}: {len(due)} artifacts and reports are needed no longer"
    return [Step("sweep", _job(place, wanted, owner, settings, max(due.values())), words)]


def _about(
    job: Mapping[str, Any],
    place: tuple[str, str, str],
    owner: Mapping[str, Any],
    noted: list[str],
    unneeded: dict[str, str],
) -> list[Step]:
    """Return what follows from a sweep that was begun: nothing while it runs; its end is noted, then it goes."""
    ended = {c["type"]: c for c in job.get("status", {}).get("conditions", ()) if c.get("status") == "True"}
    if "Complete" in ended:
        before = job["metadata"]["annotations"][_BEFORE]
        left = {mark: since for mark, since in unneeded.items() if since > before}
        done = Step("clear", dict(job), f"swept claim {place[1]}")
        return [Step("note", _book(place, noted, left, owner)), done]
    if "Failed" in ended:
        words = str(ended["Failed"].get("message", ""))
        return [Step("clear", dict(job), f"sweeping claim {place[1]} failed and is tried again: {words}")]
    return []


_BEFORE = f"{names.GROUP}/before"


def _text(time: datetime) -> str:
    """Return a time so that texts compare as times do: always UTC, always whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(since: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(since)).total_seconds()


def _unneeded(book: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what is needed no longer, each with the time at which that was first seen."""
    lines = book["data"].get("unneeded", "").splitlines() if book else []
    return dict(line.split(" ", 1) for line in lines)


def _meta(name: str, place: tuple[str, str, str], kind: str, owner: Mapping[str, Any]) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/name": names.MANAGER, "app.kubernetes.io/component": "store", names.MANAGED_BY: names.MANAGER,
        names.LABEL_KIND: kind, names.LABEL_KEY: key(place),
    }  # fmt: skip
    return {"name": name, "namespace": place[0], "labels": labels, "ownerReferences": [dict(owner)]}


def key(place: tuple[str, str, str]) -> str:
    """Return the label by which a store's objects are found."""
    return names.digest(list(place[1:]))


def place_of(item: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the store that a ConfigMap of ours is about."""
    data = item.get("data", {})
    return item["metadata"]["namespace"], data.get("claim", ""), data.get("folder", "")


def _book(
    place: tuple[str, str, str], marks: list[str], unneeded: Mapping[str, str], owner: Mapping[str, Any]
) -> dict[str, Any]:
    lost = "\n".join(f"{mark} {since}" for mark, since in sorted(unneeded.items()))
    return {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": _meta(f"lm-store-{key(place)}", place, "store", owner),
        "data": {"claim": place[1], "folder": place[2], "needed": "\n".join(marks), "unneeded": lost},
    }  # fmt: skip


def _job(
    place: tuple[str, str, str], wanted: Needs, owner: Mapping[str, Any], settings: Settings, before: str
) -> dict[str, Any]:
    store = Claim(place[1], place[2])
    vols, mounts = scratch()
    command = [
        "python", "-m", "leanmodel_store.sweep", "--store", volumes.STORE_PATH, "--before", before,
        "--keep", *sorted(wanted.artifacts), "--keep-reports", *sorted(wanted.reports),
    ]  # fmt: skip
    pod = {
        "restartPolicy": "Never", "automountServiceAccountToken": False, "enableServiceLinks": False,
        "securityContext": pod_security(settings),
        "volumes": [*vols, volumes.store_volume(store)],
        "containers": [
            {
                "name": "job", "image": settings.compressor_image, "imagePullPolicy": settings.image_pull_policy,
                "command": command, "securityContext": CONTAINER_SECURITY,
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}},
                "volumeMounts": [*mounts, volumes.store_mount(store, read_only=False)],
            }
        ],
        **pull_secrets(settings.job_pull_secrets),
    }  # fmt: skip
    if settings.job_priority_class:
        pod["priorityClassName"] = settings.job_priority_class
    meta = _meta(f"lm-sweep-{names.digest([*place, before, *wanted.words()])}", place, "sweep", owner)
    return {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {**meta, "annotations": {_BEFORE: before}},
        # It ends at once; where a Job is at work in the store it fails, and is tried again with growing pauses.
        "spec": {"backoffLimit": 6, "activeDeadlineSeconds": 3600, "template": {"metadata": {"labels": meta["labels"]}, "spec": pod}},
    }  # fmt: skip
