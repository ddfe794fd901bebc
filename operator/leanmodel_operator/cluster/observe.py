"""One LeanModel as it is now: its mirrored objects, with the facts that have been gathered about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .accept import accept
from .api import Api, ApiError
from .gather import Gatherer
from .mirror import Mirror, Name
from .names import KIND, LABEL_NAME, SELECTOR
from .observed import Facts, Observed, podless, read

WATCHED = (KIND, "Job", "Pod", "ConfigMap", "RayService")
"""Kinds whose events drive the loop."""
LISTED = ("ServiceAccount", "PersistentVolumeClaim", "PodDisruptionBudget")
"""Kinds of which a look at each resync is enough: nothing happens to them by itself."""


async def observe(
    api: Api, mirror: Mirror, gatherer: Gatherer, name: Name
) -> tuple[dict[str, Any], Observed] | None:
    """Return a LeanModel and what is seen of it; None when there is none of that name.

    Raises:
        ApiError: something had to be asked, and was not answered.
    """
    body = mirror.model(name)
    if body is None:
        gatherer.forget(name)
        return None
    seen = read(body, mirror.children(name), Facts())
    if body["metadata"].get("deletionTimestamp"):
        return body, seen
    if await _look_again(api, mirror, name, str(body["metadata"]["uid"])):
        seen = read(body, mirror.children(name), Facts())
    if podless(seen):  # each kind has a watch of its own: the Job's end can be known before its pod is
        for pod in await api.list("Pod", name[0], f"{SELECTOR},{LABEL_NAME}={name[1]}"):
            mirror.take("Pod", pod)
        seen = read(body, mirror.children(name), Facts())
    model, _ = accept(body)
    return body, replace(seen, facts=await gatherer.facts(name, model, seen, body.get("status") or {}))


async def _look_again(api: Api, mirror: Mirror, name: Name, uid: str) -> bool:
    """List kinds without a watch anew where something of an earlier LeanModel of the same name seems to be left.

    It is collected within seconds, and no event says so: until the next resync it would seem to hold the name.
    """
    stale = {
        child["kind"] for child in mirror.children(name)
        if child["kind"] in LISTED
        and all(owner.get("uid") != uid for owner in child["metadata"].get("ownerReferences", ()))
    }  # fmt: skip
    for kind in stale:
        items = await api.list(kind, name[0], f"{SELECTOR},{LABEL_NAME}={name[1]}")
        there = {item["metadata"]["name"] for item in items}
        for child in mirror.children(name):
            if child["kind"] == kind and child["metadata"]["name"] not in there:
                mirror.forget(name, kind, child["metadata"]["name"])
        for item in items:
            mirror.take(kind, item)
    return bool(stale)


async def prime(api: Api, mirror: Mirror, namespaces: tuple[str, ...]) -> bool:
    """Make the mirror equal to the API server's objects; return whether it knows RayServices.

    Raises:
        ApiError: a list was refused.
    """
    kuberay = True
    for kind in (*WATCHED, *LISTED):
        for namespace in namespaces or (None,):
            listed: set[tuple[Name, str]] = set()
            asof = "0"
            try:
                async for items, version in api.pages(kind, namespace, "" if kind == KIND else SELECTOR):
                    listed |= mirror.take_all(kind, items)
                    asof = version
            except ApiError as error:
                if kind == "RayService" and error.status == 404:
                    kuberay = False
                    continue
                raise
            mirror.prune(kind, namespace, listed, asof)
    return kuberay
