"""Leader election by a Lease, as client-go does it; who loses it ends its process at once.

Nobody's clock is trusted: a Lease counts as lost when it has not changed for its duration *by the watcher's own
clock*. The holder counts itself out earlier (``renew_seconds``), and every write asks :meth:`Leader.held` first, so a
process that was stopped and woken past its lease writes nothing.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from .api import Api, ApiError
from .settings import Settings

log = logging.getLogger(__name__)


class LostError(Exception):
    """The Lease is lost: another replica leads, or may soon."""


class Leader:
    """One replica's part in the election."""

    def __init__(
        self, api: Api, settings: Settings, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take how to reach the Lease.

        Args:
            identity: this replica's name.
            clock: monotonic seconds.
        """
        self._api, self._settings, self._identity, self._clock = api, settings, identity, clock
        self._renewed: float | None = None
        self._seen: tuple[Any, float] | None = None

    def held(self) -> bool:
        """Return whether this replica is sure to lead at this very moment."""
        if not self._settings.leader_election:
            return True
        return self._renewed is not None and self._clock() - self._renewed < self._settings.renew_seconds

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        while self._settings.leader_election and not await self._try():
            await asyncio.sleep(self._settings.retry_seconds * (0.8 + 0.4 * random.random()))
        log.info("leading as %s", self._identity)

    async def keep(self) -> None:
        """Renew for ever.

        Raises:
            LostError: it could not be renewed in time, or another has it.
        """
        while True:
            await asyncio.sleep(self._settings.retry_seconds)
            if not self._settings.leader_election:
                continue
            renewed = await self._try()
            if not self.held():
                raise LostError("the Lease was not renewed in time")
            if not renewed and self._seen is not None and self._seen[0][0] not in ("", self._identity):
                raise LostError(f"{self._seen[0][0]} has the Lease")

    async def release(self) -> None:
        """Give the Lease back, so that another need not wait for it to run out."""
        if self._settings.leader_election and self.held():
            lease = await self._get()
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                self._renewed = None
                await self._api.replace(lease)

    async def _try(self) -> bool:
        """Take or renew the Lease once; return whether it is ours now."""
        # Before the request: a renewal counts from when it was asked for, not from when the answer came.
        began = self._clock()
        try:
            lease = await self._get()
            if lease is None:
                await self._api.create(self._lease({}, 0))
            else:
                spec = lease.get("spec", {})
                holder = spec.get("holderIdentity") or ""
                mark = (holder, spec.get("renewTime"), lease["metadata"].get("resourceVersion"))
                if self._seen is None or self._seen[0] != mark:
                    self._seen = (mark, began)
                fresh = began - self._seen[1] < float(
                    spec.get("leaseDurationSeconds") or self._settings.lease_seconds
                )
                if holder not in ("", self._identity) and fresh:
                    return False
                turns = int(spec.get("leaseTransitions") or 0) + (holder != self._identity)
                await self._api.replace(self._lease(lease, turns))
        except ApiError as error:
            log.warning("the Lease could not be had: %s", error)
            return False
        self._renewed = began
        return True

    async def _get(self) -> dict[str, Any] | None:
        return await self._api.get("Lease", self._settings.lease_namespace, self._settings.lease_name)

    def _lease(self, before: dict[str, Any], turns: int) -> dict[str, Any]:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = before.get("spec", {})
        mine = old.get("holderIdentity") == self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": before.get("metadata")
            or {"name": self._settings.lease_name, "namespace": self._settings.lease_namespace},
            "spec": {
                "holderIdentity": self._identity, "leaseDurationSeconds": int(self._settings.lease_seconds),
                "acquireTime": old.get("acquireTime") if mine and old.get("acquireTime") else now,
                "renewTime": now, "leaseTransitions": turns,
            },
        }  # fmt: skip
