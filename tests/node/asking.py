"""Asks a LeanModel from within the cluster for as long as a test does something to it; and its pods by their part."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import Place
from node_support import Object

STEADY = Path(__file__).with_name("steady.py").read_bytes()


@contextmanager
def asking(place: Place, url: str, name: str) -> Iterator[dict[str, Any]]:
    """Keep asking from within the cluster; afterwards the dictionary holds what came back, as steady.py prints it."""
    place.kubectl.put("inputs", place.namespace, "/inputs", {"steady.py": STEADY})
    place.kubectl.run("exec", "-n", place.namespace, "inputs", "--", "rm", "-f", "/inputs/stop")
    words = ("exec", "-n", place.namespace, "inputs", "--", "python", "/inputs/steady.py", url, name)
    found: dict[str, Any] = {}
    with subprocess.Popen(
        place.kubectl.command(*words, "/inputs/stop", "1"), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield found
        finally:
            place.kubectl.run("exec", "-n", place.namespace, "inputs", "--", "touch", "/inputs/stop")
            text, _ = process.communicate(timeout=180)
        found.update(json.loads(text))
    failed = found["failed"]
    print(f"\n{ {**found, 'failed': len(failed)} }", *failed[:3], *failed[3:][-3:], sep="\n  ")


def pods(place: Place, name: str, part: str) -> dict[str, Object]:
    """Return the pods of a LeanModel's head, large or lean model, by name."""
    selector = f"leanmodel.io/name={name},leanmodel.io/part={part}"
    return {item["metadata"]["name"]: item for item in place.kubectl.list("pods", place.namespace, selector)}
