"""Checkpoints inside a long step: tensors as safetensors, state as JSON, each whole or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TENSORS = "state.safetensors"
STATE = "state.json"
PREFIX = "at-"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was found: the unit it was written after, its folder and its state."""

    at: int
    folder: Path
    state: dict[str, Any]

    def tensors(self) -> dict[str, Any]:
        """Return the tensors, in memory of their own."""
        from safetensors.torch import load_file

        return {name: tensor.clone() for name, tensor in load_file(str(self.folder / TENSORS)).items()}


def save(folder: Path, at: int, tensors: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint beside the last one, put it in place by one rename, then remove the older ones.

    Tensors are stored from the processor whatever device they are on: another machine may go on from there.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    building = folder / f"building-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, str(building / TENSORS))
    checked = {**state, "at": at, "crc32": crc32(building / TENSORS)}
    (building / STATE).write_text(json.dumps(checked, sort_keys=True))
    place = folder / f"{PREFIX}{at:09d}"
    shutil.rmtree(place, ignore_errors=True)
    building.rename(place)
    for path in folder.iterdir():
        if path != place:
            shutil.rmtree(path, ignore_errors=True)


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint, or None; damaged ones are passed over."""
    if not folder.is_dir():
        return None
    for place in sorted(folder.glob(f"{PREFIX}*"), reverse=True):
        try:
            state = json.loads((place / STATE).read_text())
            if crc32(place / TENSORS) == state["crc32"]:
                return Checkpoint(int(state["at"]), place, state)
        except (OSError, ValueError, KeyError):
            continue
    return None


def crc32(path: Path) -> int:
    """Return a file's CRC-32: a power cut can leave a file of the right length with holes in it."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value
