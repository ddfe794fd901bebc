"""The frozen model's logits at the answers, asked once and kept where they fit, or whenever they are wanted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from .. import devices, hf
from ..batches import Row, by_length
from . import training
from .protocol import Place

# Logits are kept when they fit here; otherwise the teacher is asked again for every micro-batch.
KEPT_BYTES = 2 * 2**30
# Micro-batches of the teacher per part on disk.
PART = 4


def logits_bytes(rows: Sequence[Row], vocabulary: int) -> int:
    """Return the bytes of the teacher's logits in float16."""
    return 2 * vocabulary * sum(row.answers for row in rows)


def keeps_logits(rows: Sequence[Row], vocabulary: int) -> bool:
    """Say whether the teacher's logits are kept."""
    return logits_bytes(rows, vocabulary) <= KEPT_BYTES


class Teacher(Protocol):
    """Gives the frozen model's logits at the answer positions of a micro-batch, in collate's order."""

    def logits(self, part: Sequence[int]) -> Any:
        """Return logits in float32, positions × vocabulary, on whatever device they come from."""
        ...


class LiveTeacher:
    """A teacher that is asked whenever its logits are wanted."""

    def __init__(self, folder: Path, rows: Sequence[Row], pad: int):
        """Load the frozen model."""
        self._model, self._rows, self._pad = hf.load_model(folder, device=devices.teacher()), rows, pad

    def logits(self, part: Sequence[int]) -> Any:
        """Ask the model."""
        import torch

        ids, where, columns, _ = training.collate(self._rows, part, self._pad, devices.of(self._model))
        with torch.no_grad():
            return training.answer_logits(self._model, ids, where, columns)


class KeptTeacher:
    """A teacher that was asked once; its logits lie in the scratch folder and are read row by row."""

    def __init__(
        self, place: Place, rows: Sequence[Row], pad: int, units: int, total: int, name: str = "teacher"
    ):
        """Ask for what is not there yet; ``units`` of the step's ``total`` are told meanwhile."""
        from safetensors import safe_open

        folder = place.scratch / f"{name}-{place.fingerprint[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        parts = by_length(rows)
        chunks = [parts[at : at + PART] for at in range(0, len(parts), PART)]
        self._where: dict[int, int] = {
            index: at for at, chunk in enumerate(chunks) for part in chunk for index in part
        }
        missing = [at for at in range(len(chunks)) if not _part_path(folder, at).exists()]
        if missing:
            _ask(place, folder, chunks, missing, rows, pad, units, total)
        paths = [_part_path(folder, at) for at in range(len(chunks))]
        self._files: list[Any] = [safe_open(str(path), framework="pt") for path in paths]

    def logits(self, part: Sequence[int]) -> Any:
        """Read the rows of the micro-batch."""
        import torch

        found = [self._files[self._where[index]].get_tensor(str(index)) for index in part]
        return torch.cat(found).float()


def _ask(
    place: Place,
    folder: Path,
    chunks: list[list[list[int]]],
    missing: list[int],
    rows: Sequence[Row],
    pad: int,
    units: int,
    total: int,
) -> None:
    """Ask the teacher for the parts that are missing, and put each in place whole."""
    assert place.teacher is not None
    live = LiveTeacher(place.teacher, rows, pad)
    most = sum(len(chunk) for chunk in chunks)
    done = most - sum(len(chunks[at]) for at in missing)
    place.progress(units * done / most, total, "asking the teacher")
    for at in missing:
        tensors = {}
        for part in chunks[at]:
            logits, begin = live.logits(part), 0
            for index in part:
                end = begin + rows[index].answers
                tensors[str(index)] = logits[begin:end].half().clone().cpu()
                begin = end
            done += 1
            place.progress(units * done / most, total, f"asking the teacher, {done}/{most}")
        _write_part(folder, at, tensors)


def _part_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.safetensors"


def _write_part(folder: Path, number: int, tensors: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    building = folder / f"building-{os.getpid()}"
    save_file(tensors, str(building))
    building.rename(_part_path(folder, number))
