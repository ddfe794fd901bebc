"""The few calls of the Kubernetes API that bringing a node up needs, with the standard library alone."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .certificates import Pair
from .words import ClusterError

SECONDS = 30


class Api:
    """An API server, asked with a client certificate."""

    def __init__(self, url: str, authority: Path, client: Pair) -> None:
        """Reads the certificates; asks nothing yet."""
        self.url = url
        context = ssl.create_default_context(cafile=str(authority))
        context.load_cert_chain(client.certificate, client.key)
        # Proxies of the environment are for the world outside, not for a server on this machine.
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def get(self, path: str) -> Any:
        """Returns what lies at a path, or None when there is nothing; raises ClusterError for other answers."""
        return self._ask("GET", path, None, {})

    def apply(self, path: str, body: bytes) -> Any:
        """Applies YAML or JSON on the server's side to the object at a path."""
        options = "?fieldManager=leanmodel-cluster&force=true"
        return self._ask("PATCH", path + options, body, {"Content-Type": "application/apply-patch+yaml"})

    def delete(self, path: str) -> None:
        """Deletes the object at a path; one that is gone already is no error."""
        self._ask("DELETE", path, None, {})

    def answers(self, path: str) -> bool:
        """Says whether a path answers 200 now; a server that is not there yet does not."""
        try:
            with self.opener.open(self.url + path, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers)
        try:
            with self.opener.open(request, timeout=SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404 and method in ("GET", "DELETE"):
                return None
            told = error.read().decode(errors="replace")[:1000]
            raise ClusterError(
                f"{method} {path} was answered with {error.code}: {told}", "see above"
            ) from None
        except OSError as error:
            raise ClusterError(f"{self.url} does not answer ({error})", "run `make cluster-up`") from None
