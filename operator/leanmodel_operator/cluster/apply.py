"""Carries out a plan's writes, in order, and keeps what the API server answers."""

from __future__ import annotations

import base64
import datetime
import logging
import secrets
from collections.abc import Mapping
from typing import Any

from .api import Api, ApiError
from .children.access import TOKEN_KEYS
from .compare import Write
from .mirror import Mirror, Name
from .names import KIND, MANAGED_BY, MANAGER, digest
from .observed import Key
from .plan import Event
from .queue import RetryError

BUSY_SECONDS = 2.0
log = logging.getLogger(__name__)


class KindMissingError(Exception):
    """The API server does not know RayServices."""


class TakenError(Exception):
    """An object that is not ours has a name that we need."""

    def __init__(self, key: Key) -> None:
        """Say which."""
        self.key = key
        super().__init__(f"{key[0]} {key[1]} is there and is not ours: delete it, or rename the LeanModel")


async def apply(
    api: Api,
    mirror: Mirror,
    name: Name,
    body: Mapping[str, Any],
    writes: list[Write],
    events: tuple[Event, ...],
) -> None:
    """Write.

    Args:
        body: the LeanModel, which the events are about.
        writes: from :func:`compare.writes`, the status last.
        events: told before the status is written: a kill between the two tells them twice under one name, which
            is once.

    Raises:
        KindMissingError: KubeRay is not installed (any more).
        TakenError: the name of something to make is taken.
        RetryError: something is not as it was seen, or the server asks to wait; look again and go on.
        ApiError: anything else that the server refused.
    """
    for write in writes:
        if write.verb == "status" and events:
            for event in events:
                await _tell(api, name, body, event)
        await _one(api, mirror, name, write)


async def _one(api: Api, mirror: Mirror, name: Name, write: Write) -> None:
    kind, child = write.key
    try:
        if write.verb == "delete":
            assert write.ref is not None
            if await api.delete(kind, name[0], child, write.ref.uid):
                # Its event may never come (a watch that was too old): without this it would be deleted for ever.
                mirror.forget(name, kind, child)
            log.info("deleted %s %s", kind, child, extra={"leanmodel": "/".join(name)})
            return
        assert write.body is not None
        if write.verb == "create":
            made = await api.create(_with_tokens(write.body) if kind == "Secret" else write.body)
            log.info("created %s %s", kind, child, extra={"leanmodel": "/".join(name)})
        elif write.verb == "apply":
            made = await api.apply(write.body, write.version)
            log.info("applied %s %s", kind, child, extra={"leanmodel": "/".join(name)})
        else:
            made = await api.apply_status(KIND, name[0], child, write.version, write.body)
        if kind != "Secret":
            mirror.take(kind, made)
    except ApiError as error:
        await _refused(api, mirror, name, write, error)


async def _refused(api: Api, mirror: Mirror, name: Name, write: Write, error: ApiError) -> None:
    kind, child = write.key
    if error.status == 409:
        present = None if kind == "Secret" else await api.get(kind, name[0], child)
        if present is None:
            mirror.forget(name, kind, child)
        else:
            mirror.take(kind, present)
            if write.verb == "create" and not _ours(present, name):
                raise TakenError((kind, child))
        raise RetryError(0.0, f"{kind} {child} is not as it was seen; looking again") from error
    if error.status == 429:
        raise RetryError(max(error.retry_after, BUSY_SECONDS), "the API server asks to wait") from error
    # An address that the server does not know is answered in plain words; a namespace that is gone, by name.
    if error.status == 404 and kind == "RayService" and "page not found" in str(error):
        raise KindMissingError(str(error)) from error
    if error.status == 404 and write.verb == "status" and await api.get(KIND, name[0], name[1]) is None:
        # It was deleted while nobody watched: what was made for it meanwhile has no owner, and is collected.
        mirror.forget(name, KIND, name[1])
        raise RetryError(0.0, "the LeanModel is gone") from error
    if error.status == 404 and write.verb in ("status", "create", "apply"):
        # The LeanModel, its namespace or the kind is gone: whatever it is, its event or the next resync says more.
        raise RetryError(BUSY_SECONDS, f"{kind} {child}: {error}") from error
    if error.status == 403 and "definition is terminating" in str(error):
        raise RetryError(BUSY_SECONDS, f"{kind} {child}: {error}") from error
    if error.status == 403 and "being terminated" in str(error):
        raise RetryError(30.0, "the namespace is being terminated; nothing is made in it any more") from error
    raise error


def _ours(item: Mapping[str, Any], name: Name) -> bool:
    labels = item["metadata"].get("labels") or {}
    return labels.get(MANAGED_BY) == MANAGER and labels.get("leanmodel.io/name") == name[1]


def _with_tokens(body: dict[str, Any]) -> dict[str, Any]:
    """Return the Secret with fresh random words; they are nowhere else than in it."""
    words = {key: base64.b64encode(secrets.token_urlsafe(32).encode()).decode() for key in TOKEN_KEYS}
    return {**body, "data": words}


async def _tell(api: Api, name: Name, body: Mapping[str, Any], event: Event) -> None:
    """Write a Kubernetes Event; one of its name is there already when it was told before."""
    meta = body["metadata"]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = digest([meta["uid"], meta.get("generation"), event.kind, event.reason, event.message], 12)
    item = {
        "apiVersion": "v1", "kind": "Event", "type": event.kind, "reason": event.reason, "message": event.message,
        "metadata": {"name": f"{name[1][:200]}.{told}", "namespace": name[0]},
        "involvedObject": {
            "apiVersion": body.get("apiVersion"), "kind": KIND, "name": name[1], "namespace": name[0], "uid": meta["uid"],
        },
        "source": {"component": "leanmodel-operator"}, "reportingComponent": "leanmodel.io/operator",
        "reportingInstance": "leanmodel-operator", "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    }  # fmt: skip
    try:
        await api.create(item)
    except ApiError as error:
        if error.status != 409:
            log.warning("event %s was not told: %s", event.reason, error, extra={"leanmodel": "/".join(name)})
