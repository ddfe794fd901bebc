"""Keep Serve at the desired-state file, whatever happened before; say in a status file how far it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from leanmodel_api.failure import last_words

from ..engines.base import PROCESS_TITLES
from .processes import children, command_line, descendants
from .status import ApplicationStatus, HostStatus

_PROBE_TIMEOUT_S = 5.0


def parse_desired(text: str) -> dict[str, Any]:
    """Return the desired state as a serveConfigV2 object.

    Raises:
        ValueError: it is not one; the message says where.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("applications"), list):
        raise ValueError('expected an object with a list "applications", as in serveConfigV2')
    names = [str(item.get("name")) for item in document["applications"]]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"application {name} is named more than once")
    return document


class Reconciler:
    """The loop: read the file, deploy what differs, look at Serve, write the status."""

    def __init__(
        self,
        client: Any,
        desired: Path,
        status_file: Path,
        base: HostStatus,
        token: str,
        period_s: float = 0.5,
    ) -> None:
        """Set up the loop.

        Args:
            client: Serve's controller client.
            desired: the desired-state file.
            status_file: where the status is written.
            base: status with endpoint, metrics address and pid filled in.
            token: the engines' token, to probe their addresses.
            period_s: seconds between two looks.
        """
        self.client, self.desired, self.status_file = client, desired, status_file
        self.status, self.token, self.period_s = base, token, period_s
        self.stop = threading.Event()
        self._applied: str | None = None
        self._prefixes: dict[str, str] = {}
        self._ready: set[str] = set()
        self._since: dict[str, tuple[str, float]] = {}

    def run(self) -> None:
        """Loop until ``stop`` is set."""
        while not self.stop.is_set():
            end_orphans()
            errors = self._apply()
            self._publish(errors)
            self.stop.wait(self.period_s)

    def _apply(self) -> list[str]:
        """Deploy the desired state when it is not the one applied last; return what is wrong with it."""
        from ray.serve.schema import ServeDeploySchema

        try:
            text = self.desired.read_text(encoding="utf-8")
        except OSError as error:
            return [f"{self.desired.name}: cannot be read ({error.strerror}); the applied state stays"]
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest == self._applied:
            return []
        try:
            document = parse_desired(text)
            config = ServeDeploySchema.model_validate(document)
        except ValueError as error:
            return [f"{self.desired.name}: {error}; the applied state stays"]
        self.client.deploy_apps(config)
        self._applied = digest
        self._prefixes = {app.name: app.route_prefix or "/" for app in config.applications}
        return []

    def _publish(self, errors: list[str]) -> None:
        details = self.client.get_serve_details().get("applications", {})
        applications = {}
        for name in {**details, **self._prefixes}:
            applications[name] = self._look(name, details.get(name))
        self.status = self.status.model_copy(
            update={
                "phase": "Running",
                "message": _summary(applications),
                "errors": errors,
                "applications": applications,
                "desired_digest": self._applied or "",
                "pids": [self.status.pid, *descendants(self.status.pid)],
                "updated": time.time(),
            }
        )
        self.status.write(self.status_file)

    def _look(self, name: str, details: dict[str, Any] | None) -> ApplicationStatus:
        if details is None:
            return ApplicationStatus(status="NOT_STARTED")
        status = str(getattr(details["status"], "value", details["status"]))
        replicas: dict[str, int] = {}
        messages = [str(details.get("message") or "")]
        for deployment in details.get("deployments", {}).values():
            messages.append(str(deployment.get("message") or ""))
            for replica in deployment.get("replicas", []):
                state = str(getattr(replica["state"], "value", replica["state"]))
                replicas[state] = replicas.get(state, 0) + 1
        prefix = (details.get("route_prefix") or self._prefixes.get(name, "/")).rstrip("/")
        url = self.status.endpoint + prefix
        if self._since.get(name, ("", 0.0))[0] != status:
            self._since[name] = (status, time.time())
        if status != "RUNNING":
            self._ready.discard(name)
        elif name not in self._ready and self._answers(f"{url}/health"):
            self._ready.add(name)
        return ApplicationStatus(
            status=status,
            ready=name in self._ready,
            message=last_words(" ".join(text for text in messages if text)),
            url=url,
            since=self._since[name][1],
            replicas=replicas,
        )

    def _answers(self, url: str) -> bool:
        """Say whether an address is reached through HAProxy, which learns of a replica a little after Serve."""
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {self.token}"})
        try:
            with urllib.request.urlopen(request, timeout=_PROBE_TIMEOUT_S) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def end_orphans() -> None:
    """End engines' own processes that outlived their replica and so became ours: they hold a model's memory."""
    for pid in children(os.getpid()):
        if command_line(pid).startswith(PROCESS_TITLES):
            # Waited for by its number: Ray waits for its own processes.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _summary(applications: dict[str, ApplicationStatus]) -> str:
    failed = sorted(
        name for name, app in applications.items() if app.status in ("DEPLOY_FAILED", "UNHEALTHY")
    )
    if failed:
        return f"failing: {', '.join(failed)}; see their messages"
    waiting = sorted(name for name, app in applications.items() if not app.ready)
    return f"waiting for {', '.join(waiting)}" if waiting else "all applications are ready"
