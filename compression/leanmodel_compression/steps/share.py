"""Share: neighbouring layers get one set of weights (ALBERT, arXiv 1909.11942; for decoders arXiv 2410.20672).

What all layers of a group have from now on is the mean of what they had, or the first one's. It is stored once, and
trained as one by the Heal or Distill that should follow: neighbours are less alike than one hopes. No engine here
shares weights, so what is served is expanded again (see expand), as large as before: fewer parameters and a smaller
artifact are what sharing gives, and no speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from leanmodel_api.errors import Issue
from leanmodel_api.shared import LAYERS, architecture, family_of, model_type

from .. import hf, memory
from ..shapes import ModelShape
from . import sparse
from .protocol import Outcome, Place, Task, WithoutRows, Work, checked


class Sharing(WithoutRows):
    """Ties the layers of a group."""

    name = "Share"
    version = 1
    libraries = ("torch", "transformers")
    teaches = False

    def issues(self, task: Task) -> list[Issue]:
        """Check that there is a class for it, and that some layers share."""
        spec, field, shape = task.spec, task.field, task.shape
        if family_of(shape.architecture) is None:
            return [Issue(field, f"there are no shared {shape.architecture}", "remove the step")]
        if len(set(sources(spec, shape.layers))) == shape.layers:
            found = (
                f"groups of {spec.layers_per_group} leave no two of {shape.layers} layers together, of which "
                f"{spec.protect_first} and {spec.protect_last} at the ends stay"
            )
            return [Issue(f"{field}.layersPerGroup", found, "write 2, or protect fewer layers")]
        return []

    def after(self, task: Task) -> ModelShape:
        """As many layers, fewer of them stored."""
        name = architecture(family_of(task.shape.architecture) or "")
        return replace(task.shape, architecture=name, shared=tuple(sources(task.spec, task.shape.layers)))

    def memory(self, task: Task) -> int:
        """The stored weights, and what becomes of them."""
        need = memory.loaded_bytes(task.shape)
        return checked(task, self.after(task), need)

    def disk(self, task: Task) -> int:
        """The artifact in bf16."""
        return 2 * self.after(task).parameters

    def work(self, task: Task) -> Work:
        """Reading, averaging and writing."""
        return Work(bytes=20.0 * task.shape.parameters, seconds=1.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Write one set of weights for each group, and a configuration that says which layer has which."""
        place.progress(0, 1, "sharing")
        layers = sources(task.spec, task.shape.layers)
        tensors = tied(sparse.read(place), layers, task.spec.init)
        sparse.write(tensors, place)
        family = family_of(task.shape.architecture) or ""
        config = hf.read_json(place.target / hf.CONFIG)
        config |= {LAYERS: layers, "model_type": model_type(family), "architectures": [architecture(family)]}
        hf.write_json(place.target / hf.CONFIG, config)
        place.progress(1, 1, "")
        stored = len(set(layers))
        return Outcome(
            sum(1 for name in tensors if grouped(name, layers)),
            f"{stored} sets of weights for {len(layers)} layers, {task.spec.init.lower()} of each group",
            None,
            {"storedLayers": float(stored), "layers": float(len(layers))},
        )


def sources(spec: Any, layers: int) -> list[int]:
    """Return for each layer the first one of its group; the last group may be smaller."""
    found = []
    for index in range(layers):
        inside = spec.protect_first <= index < layers - spec.protect_last
        found.append(index - (index - spec.protect_first) % spec.layers_per_group if inside else index)
    return found


def grouped(name: str, layers: Sequence[int]) -> bool:
    """Say whether a parameter belongs to a layer that shares."""
    parts = name.split(".")
    return name.startswith("model.layers.") and list(layers).count(int(parts[2])) > 1


def tied(tensors: Mapping[str, Any], layers: Sequence[int], init: str) -> dict[str, Any]:
    """Return the tensors with one set of weights for each group, under the name of its first layer.

    Args:
        tensors: of the model, bf16.
        layers: for each layer the first one of its group.
        init: ``Mean`` or ``First``.
    """
    import torch

    found: dict[str, Any] = {}
    for name, value in tensors.items():
        if not name.startswith("model.layers."):
            found[name] = value
            continue
        index, rest = name.removeprefix("model.layers.").split(".", 1)
        if layers[int(index)] != int(index):
            continue
        members = [at for at, source in enumerate(layers) if source == int(index)]
        if init == "Mean" and len(members) > 1:
            whole = torch.stack([tensors[f"model.layers.{at}.{rest}"].float() for at in members])
            found[name] = whole.mean(0).to(value.dtype)
        else:
            found[name] = value
    return found
