"""What the tests on a cluster share: kubectl as people use it, waiting with a deadline, and what is shown on failure."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
CONDITIONS = ("Accepted", "Compressed", "Proven", "Serving", "Ready")


class KubectlError(Exception):
    """kubectl ended with an error; the message is what it said."""


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl against one cluster, as an administrator does."""

    kubeconfig: Path
    program: str = "kubectl"

    def run(self, *words: str, given: str | bytes | None = None, timeout: float = 120) -> str:
        """Run one command; return what it wrote.

        Args:
            given: its standard input.

        Raises:
            KubectlError: it ended with an error.
        """
        data = given.encode() if isinstance(given, str) else given
        done = subprocess.run(
            self.command(*words), input=data or b"", capture_output=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode(errors="replace")

    def command(self, *words: str) -> list[str]:
        """Return the whole command."""
        return [self.program, "--kubeconfig", str(self.kubeconfig), *words]

    def apply(self, *things: Object, server_side: bool = False) -> None:
        """Apply objects."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(things)})
        self.run(
            "apply", *(["--server-side", "--force-conflicts"] if server_side else []), "-f", "-", given=text
        )

    def find(self, kind: str, name: str, namespace: str) -> Object | None:
        """Return an object, or None when there is none."""
        text = self.run("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, namespace: str, selector: str = "") -> list[Object]:
        """Return the objects of a kind."""
        words = ["get", kind, "-n", namespace, "-o", "json", *(["-l", selector] if selector else [])]
        items: list[Object] = json.loads(self.run(*words))["items"]
        return items

    def put(self, pod: str, namespace: str, folder: str, files: dict[str, bytes]) -> None:
        """Write files into a folder of a pod's container."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        words = ("exec", "-i", "-n", namespace, pod, "--", "tar", "--no-same-owner", "-xf", "-", "-C", folder)
        self.run(*words, given=packed.getvalue(), timeout=300)


def conditions(item: Object | None) -> dict[str, Object]:
    """Return an object's conditions by type; none of an object that is not there or has not been looked at."""
    found = ((item or {}).get("status") or {}).get("conditions") or []
    return {condition["type"]: condition for condition in found}


def is_true(item: Object | None, kind: str) -> bool:
    """Return whether a condition of this very generation is true."""
    condition = conditions(item).get(kind)
    if item is None or condition is None or condition["status"] != "True":
        return False
    return bool(condition["observedGeneration"] == item["metadata"]["generation"])


def wait(holds: Callable[[], Any], what: str, seconds: float, shown: Callable[[], str] = str) -> Any:
    """Return the first true answer of ``holds``.

    Args:
        what: is waited for, in words.
        seconds: how long.
        shown: what the failure tells beside it.
    """
    deadline = time.monotonic() + seconds
    while True:
        if answer := holds():
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}\n{shown()}"
        time.sleep(2)  # between two questions, each a program of its own; what is waited for is the answer


def told(kubectl: Kubectl, namespace: str) -> str:
    """Return what a person would look at first: LeanModels, pods, events, and the last words of each container."""
    parts = []
    for words in (
        ("get", "leanmodels", "-o", "wide"),
        ("get", "pods", "-o", "wide"),
        ("get", "leanmodels", "-o", "jsonpath={.items[*].status}"),
        ("get", "events", "--sort-by=.lastTimestamp"),
    ):
        parts.append(_try(kubectl, *words, "-n", namespace))
    try:
        pods = [item["metadata"]["name"] for item in kubectl.list("pods", namespace)]
    except KubectlError:
        pods = []
    for pod in pods:
        parts.append(f"--- {pod}")
        parts.append(_try(kubectl, "logs", "-n", namespace, pod, "--all-containers", "--tail=15"))
    return "\n".join(parts)[-20_000:]


def _try(kubectl: Kubectl, *words: str) -> str:
    try:
        return kubectl.run(*words)
    except (KubectlError, subprocess.TimeoutExpired) as error:
        return str(error)


def option(name: str, default: str = "") -> str:
    """Return an environment variable of these tests, such as IMAGES for LEANMODEL_E2E_IMAGES."""
    return os.environ.get(f"LEANMODEL_E2E_{name}") or default
