"""A client of the Kubernetes API that shows exactly what the server answered, for tests of what it accepts.

The operator has a client of its own; tests of the schema should not depend on it.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]

Object = dict[str, Any]


class RefusedError(Exception):
    """The API server said no: its HTTP code, reason, message, and the causes as (field, message)."""

    def __init__(self, status: Object) -> None:
        super().__init__(status.get("message", ""))
        self.code = int(status.get("code", 0))
        self.reason = str(status.get("reason", ""))
        causes = (status.get("details") or {}).get("causes") or []
        self.causes = [(str(cause.get("field", "")), str(cause.get("message", ""))) for cause in causes]


class KubeClient:
    """Talks JSON to one API server with a client certificate."""

    def __init__(self, url: str, authority: Path, certificate: Path, key: Path) -> None:
        context = ssl.create_default_context(cafile=str(authority))
        context.load_cert_chain(certificate, key)
        # Proxies of the environment are for the world outside, not for loopback.
        self.http = httpx.Client(base_url=url, verify=context, timeout=30, trust_env=False)
        self.plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Object:
        """Sends one request and returns the object that came back; raises RefusedError for any other answer."""
        headers = options.pop("headers", {})
        try:
            answer = self.http.request(method, path, json=body, params=options, headers=headers)
        except httpx.TransportError:
            if method != "GET":
                raise
            # A connection from before a restart of the server: asking anew harms nobody.
            answer = self.http.request(method, path, params=options, headers=headers)
        if answer.is_error and not answer.headers.get("content-type", "").startswith("application/json"):
            # A group that no definition serves is answered in plain words.
            raise RefusedError({"kind": "Status", "code": answer.status_code, "message": answer.text.strip()})
        content: Object = answer.json()
        if answer.is_error:
            raise RefusedError(content)
        return content

    def path(self, api_version: str, kind: str, namespace: str | None = None, name: str | None = None) -> str:
        """Returns the path of a kind's objects, or of one of them, as the server's discovery tells it."""
        root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        if (api_version, kind) not in self.plurals:
            for entry in self.ask("GET", root)["resources"]:
                if "/" not in entry["name"]:
                    self.plurals[api_version, entry["kind"]] = (entry["name"], entry["namespaced"])
        plural, namespaced = self.plurals[api_version, kind]
        scope = f"/namespaces/{namespace}" if namespaced and namespace else ""
        return f"{root}{scope}/{plural}" + (f"/{name}" if name else "")

    def create(self, thing: Object, namespace: str | None = None, **options: Any) -> Object:
        """Creates an object as `kubectl create` does: unknown fields are errors."""
        path = self.path(thing["apiVersion"], thing["kind"], namespace)
        return self.ask("POST", path, thing, fieldValidation="Strict", **options)

    def apply(self, thing: Object, namespace: str | None = None, **options: Any) -> Object:
        """Applies an object on the server's side, as `kubectl apply --server-side` does."""
        path = self.path(thing["apiVersion"], thing["kind"], namespace, thing["metadata"]["name"])
        headers = {"Content-Type": "application/apply-patch+yaml"}
        settings = {"fieldManager": "tests", "fieldValidation": "Strict", **options}
        return self.ask("PATCH", path, thing, headers=headers, **settings)

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """Returns one object; raises RefusedError with code 404 when there is none."""
        return self.ask("GET", self.path(api_version, kind, namespace, name))

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """Deletes one object; what it owns is deleted in the background, where controllers run."""
        return self.ask("DELETE", self.path(api_version, kind, namespace, name))

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = ""
    ) -> list[Object]:
        """Returns all objects of a kind that carry some labels."""
        options = {"labelSelector": selector} if selector else {}
        found = self.ask("GET", self.path(api_version, kind, namespace), **options)["items"]
        # A list says the kind of its items once, for all of them.
        return [{**item, "apiVersion": api_version, "kind": kind} for item in found]

    def merge(self, thing: Object, namespace: str | None = None, sub: str = "") -> Object:
        """Merges a part of an object into it, or into one of its subresources."""
        path = self.path(thing["apiVersion"], thing["kind"], namespace, thing["metadata"]["name"])
        part = {key: value for key, value in thing.items() if key not in ("apiVersion", "kind")}
        headers = {"Content-Type": "application/merge-patch+json"}
        return self.ask("PATCH", f"{path}/{sub}" if sub else path, part, headers=headers)

    def watch(self, api_version: str, kind: str, selector: str, version: str) -> Iterator[tuple[str, Object]]:
        """Yields events of all namespaces until the server or the caller ends it."""
        options = {"watch": "true", "labelSelector": selector, "resourceVersion": version}
        with self.http.stream("GET", self.path(api_version, kind), params=options, timeout=None) as answer:
            for line in answer.iter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]

    def table(self, api_version: str, kind: str, namespace: str) -> Object:
        """Returns what `kubectl get` shows: columns and rows."""
        headers = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
        return self.ask("GET", self.path(api_version, kind, namespace), headers=headers)


def until(holds: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Returns the first true answer of `holds`; fails with `what` when there was none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := holds():
            return answer
        time.sleep(0.05)  # between two questions; what is waited for is the answer
    raise AssertionError(f"not within {seconds:.0f} s: {what}")
