"""Prune by depth: a student made from the teacher's layers, evenly spread (DistilBERT, arXiv 1910.01108) or the first.

Where layers share their weights (ALBERT) the student computes less and stores as much.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from leanmodel_api.classification import PRUNINGS
from leanmodel_api.errors import Issue

from ... import hf, memory
from ...classifiers.shapes import EncoderShape
from ...shapes import ModelShape
from ..protocol import Outcome, Place, Task, Work
from ..prune import kept_count
from .common import FLOAT, EncoderStep, encoder, looked

LAYER = re.compile(r"^(.*\.layers?)\.(\d+)\.(.*)$")
COUNTS = ("num_hidden_layers", "n_layers")


class EncoderPruning(EncoderStep):
    """Removes layers."""

    name = "Prune"

    def issues(self, task: Task) -> list[Issue]:
        """Check that layers are meant, that something goes and something stays."""
        if task.spec.method != "Depth":
            what = f"found {task.spec.method}, which encoders do not have"
            return [Issue(f"{task.field}.method", what, f"write {' or '.join(PRUNINGS)}")]
        layers, stays = task.shape.layers, kept_count(task.spec, task.shape.layers)
        if 1 <= stays < layers:
            return []
        name = "keepLayers" if task.spec.keep_layers is not None else "ratio"
        found = f"{task.spec.keep_layers or task.spec.ratio} leaves {stays} of the model's {layers} layers"
        return [Issue(f"{task.field}.{name}", found, f"write keepLayers between 1 and {layers - 1}")]

    def after(self, task: Task) -> ModelShape:
        """Fewer layers."""
        stays = min(max(1, kept_count(task.spec, task.shape.layers)), task.shape.layers)
        return replace(encoder(task.shape), layers=stays)

    def memory(self, task: Task) -> int:
        """Cutting holds what was, and what is kept."""
        held = FLOAT * (task.shape.parameters + self.after(task).parameters)
        return looked(self.after(task), memory.PROCESS_BYTES + held)

    def work(self, task: Task) -> Work:
        """Reading and writing."""
        return Work(bytes=8.0 * task.shape.parameters, seconds=0.5)

    def run(self, task: Task, place: Place) -> Outcome:
        """Write the kept layers' tensors under their new numbers, and a configuration to match."""
        shape, spec = encoder(task.shape), task.spec
        count = kept_count(spec, shape.layers)
        kept = spread(shape.layers, count) if spec.selection == "Alternate" else list(range(count))
        write(place.source, place.target, kept, shape)
        names = ",".join(str(index) for index in kept)
        return Outcome(
            shape.layers - count, f"keepLayers {count} of {shape.layers} ({names}), {spec.selection}"
        )


def spread(layers: int, count: int) -> list[int]:
    """Return ``count`` of ``layers`` indices, evenly spread, the last one of each stretch: 1, 3, 5 of six for three."""
    return [(index + 1) * layers // count - 1 for index in range(count)]


def write(source: Path, target: Path, kept: list[int], shape: EncoderShape) -> None:
    """Write the kept layers; where all layers share their weights, only the configuration changes."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    numbers = {old: new for new, old in enumerate(kept)}
    tensors: dict[str, Any] = {}
    with safe_open(str(source / hf.WEIGHTS), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            match = LAYER.match(name)
            if match is None:
                tensors[name] = file.get_tensor(name)
            elif int(match[2]) in numbers:
                tensors[f"{match[1]}.{numbers[int(match[2])]}.{match[3]}"] = file.get_tensor(name)
    save_file(tensors, str(target / hf.WEIGHTS), metadata={"format": "pt"})
    config = hf.read_json(source / hf.CONFIG)
    hf.write_json(target / hf.CONFIG, {**config, **{n: len(kept) for n in COUNTS if n in config}})
    hf.copy_tokenizer(source, target)
    hf.tidy(target, "float32")
