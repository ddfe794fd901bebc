"""The one module that talks to the Kubernetes API: plain objects in and out, through ``kubernetes.aio``.

Neither its typed models nor its discovery are used: a path and a dict say the same in fewer requests.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from .names import FIELD_MANAGER

Recorder = Callable[[str, int], None]
"""Told of every call: the verb and the HTTP status (0: no answer)."""
_PAGE = 50
"""Objects of a page: a RayService is 100 KB once it is parsed, and a thousand of them would not fit."""
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Kind:
    """Where objects of a kind are found."""

    kind: str
    group_version: str
    plural: str

    def path(self, namespace: str | None, name: str = "", sub: str = "") -> str:
        """Return the path of one object, or of all in a namespace (None: everywhere)."""
        root = (
            f"/api/{self.group_version}" if "/" not in self.group_version else f"/apis/{self.group_version}"
        )
        where = f"/namespaces/{namespace}" if namespace is not None else ""
        return root + where + f"/{self.plural}" + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")


KINDS = {
    kind.kind: kind
    for kind in (
        Kind("LeanModel", "leanmodel.io/v1alpha1", "leanmodels"),
        Kind("Job", "batch/v1", "jobs"),
        Kind("Pod", "v1", "pods"),
        Kind("ConfigMap", "v1", "configmaps"),
        Kind("Secret", "v1", "secrets"),
        Kind("ServiceAccount", "v1", "serviceaccounts"),
        Kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
        Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
        Kind("RayService", "ray.io/v1", "rayservices"),
        Kind("Event", "v1", "events"),
        Kind("Lease", "coordination.k8s.io/v1", "leases"),
    )
}


class ApiError(Exception):
    """The API server refused a call, or did not answer.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        retry_after: seconds that the server asks to wait; 0 when it does not.
    """

    def __init__(self, status: int, message: str, retry_after: float = 0.0):
        """Keep what the server said."""
        self.status, self.retry_after = status, retry_after
        super().__init__(f"{status or 'no answer'}: {message}")


class NotLeaderError(Exception):
    """A write was refused here, because this replica can no longer be sure that it leads."""


class Api:
    """Calls of the API server; every write first asks whether this replica still leads."""

    def __init__(self, client: Any, timeout: float, record: Recorder) -> None:
        """Take a ``kubernetes.aio`` ApiClient.

        Args:
            client: configured.
            timeout: seconds that a call may take.
            record: told of every call.
        """
        self._client, self._timeout, self._record = client, timeout, record
        self.may_write: Callable[[], bool] = lambda: True

    @classmethod
    async def connect(cls, timeout: float, record: Recorder) -> Api:
        """Return a connection: as the pod's service account in a cluster, else by the user's kubeconfig."""
        from kubernetes.aio import client, config

        configuration = client.Configuration()
        if os.environ.get("KUBERNETES_SERVICE_HOST") and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(client_configuration=configuration)
        # Ours is the queue: a retry inside of the client would hold a worker and hide the cause.
        configuration.retries = None
        return cls(client.ApiClient(configuration=configuration), timeout, record)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    # ------------------------------------------------------------ reading

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Return an object, or None where there is none (or no such kind)."""
        try:
            return await self._json("get", KINDS[kind].path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def pages(
        self, kind: str, namespace: str | None, selector: str = ""
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        """Yield all objects of a kind page by page, each with the resourceVersion of the whole list.

        Raises:
            ApiError: 404 when the API server does not know the kind.
        """
        query = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = await self._json("list", KINDS[kind].path(namespace), query=query)
            meta = page.get("metadata", {})
            head = {"apiVersion": KINDS[kind].group_version, "kind": kind}
            yield [head | item for item in page.get("items", ())], str(meta.get("resourceVersion", "0"))
            if not meta.get("continue"):
                return
            query["continue"] = meta["continue"]

    async def list(self, kind: str, namespace: str | None, selector: str = "") -> list[dict[str, Any]]:
        """Return all objects of a kind.

        Raises:
            ApiError: 404 when the API server does not know the kind.
        """
        return [item async for items, _ in self.pages(kind, namespace, selector) for item in items]

    async def log(self, namespace: str, pod: str, *, tail: int, limit: int) -> str:
        """Return the end of a pod's log.

        Args:
            tail: lines at most.
            limit: bytes at most.
        """
        query = {"tailLines": str(tail), "limitBytes": str(limit)}
        raw = await self._call("log", "GET", KINDS["Pod"].path(namespace, pod, "log"), query=query)
        return raw.decode("utf-8", "replace")

    # ------------------------------------------------------------ writing

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object.

        Raises:
            ApiError: 409 when there is one of its name.
        """
        path = KINDS[body["kind"]].path(body["metadata"]["namespace"])
        return await self._json(
            "create", path, method="POST", query={"fieldManager": FIELD_MANAGER}, body=body
        )

    async def apply(self, body: dict[str, Any], version: str) -> dict[str, Any]:
        """Apply an object on the server's side, with our one field manager.

        Args:
            version: resourceVersion that it was seen with; a 409 says that it is another by now. "": not there yet.
        """
        meta = dict(body["metadata"]) | ({"resourceVersion": version} if version else {})
        path = KINDS[body["kind"]].path(meta["namespace"], meta["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._json(
            "apply", path, method="PATCH", query=query, body={**body, "metadata": meta}, kind=_APPLY
        )

    async def apply_status(
        self, kind: str, namespace: str, name: str, version: str, status: Any
    ) -> dict[str, Any]:
        """Apply a status, and nothing else, through the status subresource."""
        spec = KINDS[kind]
        body = {
            "apiVersion": spec.group_version, "kind": kind, "status": status,
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": version},
        }  # fmt: skip
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = spec.path(namespace, name, "status")
        return await self._json("apply_status", path, method="PATCH", query=query, body=body, kind=_APPLY)

    async def replace(self, body: dict[str, Any]) -> dict[str, Any]:
        """Replace an object that carries the resourceVersion that it was read with; only the Lease needs it."""
        meta = body["metadata"]
        path = KINDS[body["kind"]].path(meta["namespace"], meta["name"])
        return await self._json(
            "replace", path, method="PUT", query={"fieldManager": FIELD_MANAGER}, body=body
        )

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> bool:
        """Delete the object of that uid and, in the background, what it owns; one that is gone is no error.

        Returns:
            Whether it is gone now; what has finalizers, or a time to end in, goes later.
        """
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        try:
            found = await self._json("delete", KINDS[kind].path(namespace, name), method="DELETE", body=body)
        except ApiError as error:
            if error.status != 404:
                raise
            return True
        return found.get("kind") == "Status"

    # ------------------------------------------------------------ one way

    async def _json(self, verb: str, path: str, **more: Any) -> dict[str, Any]:
        raw = await self._call(verb, more.pop("method", "GET"), path, **more)
        found: dict[str, Any] = json.loads(raw)
        return found

    async def _call(
        self,
        verb: str,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        kind: str = "application/json",
    ) -> bytes:
        # The Lease is how one comes to lead: it is written before one does, and guarded by its own version.
        if method != "GET" and "/leases" not in path and not self.may_write():
            raise NotLeaderError(f"{verb} {path}: the Lease is no longer held for sure")
        headers = {"Accept": "application/json"} | ({"Content-Type": kind} if body is not None else {})
        serial = await self._client.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"],
        )  # fmt: skip
        target = [serial[0], serial[1] + (f"?{urlencode(query)}" if query else ""), *serial[2:]]
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._client.call_api(*target, _request_timeout=self._timeout)
                raw: bytes = await answer.read()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self._record(verb, 0)
            raise ApiError(0, f"{method} {path}: {error or type(error).__name__}") from error
        except Exception as error:
            # aiohttp's own errors; it is kubernetes' requirement, not ours, and so not imported here.
            if type(error).__module__.partition(".")[0] != "aiohttp":
                raise
            self._record(verb, 0)
            raise ApiError(0, f"{method} {path}: {error!r}") from error
        self._record(verb, answer.status)
        if answer.status >= 400:
            raise ApiError(answer.status, _message(raw, f"{method} {path}"), _retry_after(answer))
        return raw


def _message(raw: bytes, fallback: str) -> str:
    try:
        return str(json.loads(raw).get("message") or fallback)
    except (ValueError, AttributeError):
        return f"{fallback}: {raw[:200].decode('utf-8', 'replace')}"


def _retry_after(answer: Any) -> float:
    try:
        return float(answer.getheader("Retry-After") or 0)
    except (TypeError, ValueError):
        return 0.0
