"""Looks after the stores from time to time: what :mod:`.sweep` decides is carried out here."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections import defaultdict
from typing import Any

from . import names, sweep
from .api import Api, ApiError
from .mirror import Mirror
from .settings import Settings

_UNDER_WAY_SECONDS = 30.0
log = logging.getLogger(__name__)

Place = tuple[str, str, str]


class Sweeper:
    """Sweeps the stores of all LeanModels in the mirror."""

    def __init__(self, api: Api, mirror: Mirror, settings: Settings) -> None:
        """Take where LeanModels are seen, and how objects are written."""
        self._api, self._mirror, self._settings = api, mirror, settings

    async def run(self) -> None:
        """Look for ever."""
        whole = self._settings.sweep_seconds
        wait = min(whole, 2 * _UNDER_WAY_SECONDS)
        while True:
            await asyncio.sleep(wait)
            try:
                wait = min(whole, _UNDER_WAY_SECONDS) if await self.look() else whole
            except ApiError as error:
                log.warning("stores were not looked after: %s", error)
                wait = whole

    async def look(self) -> bool:
        """Look at every store once; return whether a sweep is under way."""
        found = await self._objects()
        under_way = False
        for place, wanted in (await self._needs(found)).items():
            mine = found.get((place[0], sweep.key(place)), [])
            if wanted is None or not place[1]:
                continue
            owner = await self._owner(place)
            if owner is None:  # the claim is gone, or not there yet: nothing is stored
                continue
            now = datetime.datetime.now(datetime.UTC)
            todo = sweep.steps(place, wanted, owner, mine, self._settings, now)
            for step in todo:
                await self._do(step, mine)
            under_way |= any(step.verb == "sweep" for step in todo) or any(i["kind"] == "Job" for i in mine)
        return under_way

    async def _objects(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Return our ConfigMaps and Jobs by namespace and store."""
        found = defaultdict(list)
        for kind in ("ConfigMap", "Job"):
            for namespace in self._settings.namespaces or (None,):
                for item in await self._api.list(kind, namespace, sweep.KINDS):
                    meta = item["metadata"]
                    found[meta["namespace"], meta["labels"].get(names.LABEL_KEY, "")].append(item)
        return found

    async def _needs(
        self, found: dict[tuple[str, str], list[dict[str, Any]]]
    ) -> dict[Place, sweep.Needs | None]:
        """Return what is needed of each store; one whose LeanModels are all gone is still swept."""
        parts = []
        for name in self._mirror.names():
            body = self._mirror.model(name)
            if body is not None:
                parts.append((name, sweep.needs(body, self._mirror.children(name), self._settings)))
            await asyncio.sleep(0)  # a thousand of them must not hold up the Lease
        known = sweep.together(parts)
        unknown = {name[0] for name, part in parts if part is None}
        for items in found.values():
            for item in items:
                if item["kind"] == "ConfigMap" and item["metadata"]["namespace"] not in unknown:
                    known.setdefault(sweep.place_of(item), sweep.Needs())
        return known

    async def _owner(self, place: Place) -> dict[str, Any] | None:
        claim = await self._api.get("PersistentVolumeClaim", place[0], place[1])
        if claim is None or "deletionTimestamp" in claim["metadata"]:
            return None
        return {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": place[1], "uid": claim["metadata"]["uid"],
            "blockOwnerDeletion": False,
        }  # fmt: skip

    async def _do(self, step: sweep.Step, mine: list[dict[str, Any]]) -> None:
        meta = step.body["metadata"]
        if step.words:
            log.info("%s (namespace %s)", step.words, meta["namespace"])
        try:
            if step.verb == "note":
                present = next((item for item in mine if item["kind"] == "ConfigMap"), None)
                await self._api.apply(step.body, present["metadata"]["resourceVersion"] if present else "")
            elif step.verb == "sweep":
                await self._api.create(step.body)
            else:
                await self._api.delete("Job", meta["namespace"], meta["name"], meta["uid"])
        except ApiError as error:
            if error.status != 409:  # another look, soon, sees what is there now
                raise
