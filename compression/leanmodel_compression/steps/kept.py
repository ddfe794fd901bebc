"""What a calibration has finished, decoder layer by decoder layer, so that a killed run goes on there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .. import checkpoint

LAYER = re.compile(r"\.(\d+)\.")


class Kept:
    """The finished layers' tensors in a scratch folder, each whole or not there."""

    def __init__(self, folder: Path, fingerprint: str):
        """Use the folder for one step; what was kept for another fingerprint is ignored."""
        self._folder = folder / fingerprint[:16]
        self._found: dict[str, dict[str, Any] | None] = {}
        self.reused = 0

    def load(self, group: str) -> dict[str, Any] | None:
        """Return the tensors of a finished layer by parameter name, or None."""
        if group not in self._found:
            found = checkpoint.latest(self._folder / group)
            self._found[group] = None if found is None else found.tensors()
        return self._found[group]

    def drop(self, group: str) -> None:
        """Forget a layer's tensors once they are in the model."""
        self._found[group] = None

    def save(self, group: str, tensors: dict[str, Any]) -> None:
        """Keep a finished layer."""
        checkpoint.save(self._folder / group, 0, tensors, {})


def group_of(name: str) -> str:
    """Return the group that a module is kept with: its decoder layer, or itself outside the layers."""
    match = LAYER.search(name)
    return f"layer-{int(match[1]):05d}" if match else name.replace(".", "-")
