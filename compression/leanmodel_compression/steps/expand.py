"""Expand: a model with shared layers as an ordinary one, in which every layer has its own copy of the weights.

Nobody writes this step. It stands after the last step that works on shared layers, because vLLM, llama.cpp and the
grid of Quantize know none. What is claimed from there on is what the copy has: its bytes, not those that were stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from leanmodel_api.errors import Issue
from leanmodel_api.shared import LAYERS, family_of

from .. import hf, memory
from ..shapes import ModelShape, from_config
from . import sparse
from .protocol import Outcome, Place, Task, WithoutRows, Work, checked


class Expanding(WithoutRows):
    """Gives every layer its own weights."""

    name = "Expand"
    version = 1
    libraries = ("torch", "transformers")
    teaches = False

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """There is nothing to set: what comes in says which layer has which weights."""
        return {}

    def issues(self, task: Task) -> list[Issue]:
        """What Share made can be expanded."""
        return []

    def after(self, task: Task) -> ModelShape:
        """An ordinary model."""
        family = family_of(task.shape.architecture)
        return replace(task.shape, architecture=f"{family}ForCausalLM", shared=())

    def memory(self, task: Task) -> int:
        """The stored weights; copies are the same memory until they are written."""
        return checked(task, self.after(task), memory.loaded_bytes(self.after(task)))

    def disk(self, task: Task) -> int:
        """The artifact in bf16."""
        return 2 * self.after(task).parameters

    def work(self, task: Task) -> Work:
        """Reading and writing."""
        return Work(bytes=10.0 * self.after(task).parameters, seconds=1.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Write every layer's copy, and the family's own configuration."""
        place.progress(0, 1, "expanding")
        config = hf.read_json(place.source / hf.CONFIG)
        shape = from_config(config)
        stored = hf.stored_bytes(place.source)
        sparse.write(expanded(sparse.read(place), shape.shared), place)
        family = family_of(shape.architecture) or ""
        plain = {key: value for key, value in hf.read_json(place.target / hf.CONFIG).items() if key != LAYERS}
        plain |= {"model_type": family.lower(), "architectures": [f"{family}ForCausalLM"]}
        hf.write_json(place.target / hf.CONFIG, plain)
        place.progress(1, 1, "")
        copies = sum(source != index for index, source in enumerate(shape.shared))
        detail = f"{copies} of {shape.layers} layers copied, as engines share none; stored shared {stored / 1e6:.1f} MB"
        return Outcome(copies, detail, None, {"sharedBytes": float(stored)})


def expanded(tensors: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Return the tensors with those of every layer under its own name, each in memory of its own.

    Args:
        tensors: of the shared model.
        layers: for each layer the one whose weights it has.
    """
    found = dict(tensors)
    for index, source in enumerate(layers):
        if source == index:
            continue
        theirs = f"model.layers.{source}."
        for name, value in tensors.items():
            if name.startswith(theirs):
                found[f"model.layers.{index}.{name.removeprefix(theirs)}"] = value.clone()
    return found
