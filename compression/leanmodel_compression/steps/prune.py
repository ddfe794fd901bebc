"""Prune by depth: whole layers go, and what is left is renumbered. No weight is changed.

Influence is Block Influence (ShortGPT, arXiv 2403.03853): one minus the mean cosine between what goes into a
layer and what comes out of it, over all tokens. Layers with the least go first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.errors import Issue

from .. import devices, families, hf, memory
from ..batches import Row, by_length
from ..shapes import ModelShape, forward_flops
from . import training
from .protocol import Outcome, Place, StepError, Task, Work, checked, samples

MAX_TOKENS = 512
# Lists of a configuration that have one entry per layer.
PER_LAYER = ("layer_types", "no_rope_layers")


class Pruning:
    """Removes layers."""

    name = "Prune"
    version = 1
    libraries = ("torch", "transformers")
    teaches = False

    def data_set(self, spec: Any) -> tuple[bool, str | None]:
        """Only influence is measured on data."""
        return spec.selection == "Influence", spec.data_set

    def max_length(self, spec: Any) -> int | None:
        """Influence needs no long rows."""
        return MAX_TOKENS

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All but the data set's name, whose content counts by itself."""
        hidden = {"data_set", "type"} | ({"samples"} if spec.selection == "First" else set())
        return dict(spec.model_dump(mode="json", exclude=hidden, exclude_none=True))

    def issues(self, task: Task) -> list[Issue]:
        """Check that something goes and something stays."""
        spec, field, layers = task.spec, task.field, task.shape.layers
        found = []
        if (spec.keep_layers is None) == (spec.ratio is None):
            found.append(
                Issue(field, "keepLayers and ratio must not both be set or missing", "write one of them")
            )
            return found
        name = "keepLayers" if spec.keep_layers is not None else "ratio"
        stays = kept_count(spec, layers)
        if stays >= layers:
            found.append(
                Issue(
                    f"{field}.{name}",
                    f"{spec.keep_layers or spec.ratio} removes none of the model's {layers} layers",
                    f"write keepLayers between 1 and {layers - 1}",
                )
            )
        if stays < 1 or spec.protect_first + spec.protect_last > stays:
            found.append(
                Issue(
                    f"{field}.{name}",
                    f"{stays} layers would stay, and protectFirst + protectLast keep "
                    f"{spec.protect_first + spec.protect_last}",
                    "keep more layers or protect fewer",
                )
            )
        if spec.selection == "Influence" and task.rows is not None and not task.rows.train:
            found.append(
                Issue(f"{field}.dataSet", "its train part is empty", "give rows, or write selection: First")
            )
        return found

    def after(self, task: Task) -> ModelShape:
        """Fewer layers."""
        return task.shape.with_layers(max(1, kept_count(task.spec, task.shape.layers)))

    def memory(self, task: Task) -> int:
        """Measuring needs a forward pass; cutting alone holds the kept weights in bf16."""
        if task.spec.selection == "First":
            return checked(task, self.after(task), memory.loaded_bytes(task.shape))
        return checked(task, self.after(task), memory.forward_bytes(task.shape, 2048, 0))

    def disk(self, task: Task) -> int:
        """The artifact in bf16."""
        return 2 * self.after(task).parameters

    def work(self, task: Task) -> Work:
        """One forward pass over the samples."""
        copied = 6.0 * task.shape.parameters
        if task.spec.selection == "First":
            return Work(bytes=copied, seconds=0.5)
        rows = samples(task)
        tokens = sum(len(row.ids) for row in rows)
        return Work(flops=forward_flops(task.shape, tokens, 0), bytes=3 * copied, seconds=2.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Choose the layers, and write the others' tensors under their new numbers."""
        spec, layers = task.spec, task.shape.layers
        count = kept_count(spec, layers)
        figures: dict[str, float] = {}
        if spec.selection == "Influence":
            scores = influence(place, samples(task))
            # Else writing would find the model's pages still there beside its own.
            memory.give_back()
            figures = {f"influence.{index}": score for index, score in enumerate(scores)}
            kept = choose(scores, count, spec.protect_first, spec.protect_last)
        else:
            kept = list(range(count - spec.protect_last)) + list(range(layers - spec.protect_last, layers))
        gone = layers - len(kept)
        if gone < 1:
            raise StepError(Issue(task.field, "no layer would go", "write a smaller keepLayers"))
        write(place.source, place.target, kept, layers)
        names = ",".join(str(index) for index in kept)
        return Outcome(gone, f"keepLayers {len(kept)} of {layers} ({names}), {spec.selection}", None, figures)


def kept_count(spec: Any, layers: int) -> int:
    """Return how many layers stay; a ratio is rounded to whole layers, half of one goes."""
    if spec.keep_layers is not None:
        return int(spec.keep_layers)
    return layers - math.floor(number(spec.ratio or "0") * layers + 0.5)


def choose(scores: Sequence[float], count: int, first: int, last: int) -> list[int]:
    """Return the layers that stay, in order: the protected ones, then those with the most influence."""
    layers = len(scores)
    protected = set(range(min(first, layers))) | set(range(max(0, layers - last), layers))
    ranked = sorted(
        (index for index in range(layers) if index not in protected), key=lambda i: (-scores[i], i)
    )
    return sorted([*protected, *ranked[: max(0, count - len(protected))]])


def influence(place: Place, rows: Sequence[Row]) -> list[float]:
    """Return each layer's Block Influence over all tokens of the rows (padding left out)."""
    import torch

    model = hf.load_model(place.source)
    layers = list(model.get_submodule(families.of_model(model).layers))
    totals = [0.0] * len(layers)
    weight = torch.zeros(0)

    def hook(index: int) -> Any:
        def measure(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            cosine = torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)
            totals[index] += float((cosine * weight).sum())

        return measure

    handles = [
        layer.register_forward_hook(hook(index), with_kwargs=True) for index, layer in enumerate(layers)
    ]
    parts, tokens = by_length(rows), sum(len(row.ids) for row in rows)
    with torch.no_grad():
        for done, part in enumerate(parts):
            ids, *_ = training.collate(rows, part, 0, devices.of(model))
            weight = torch.zeros(ids.shape, dtype=torch.double)
            for line, index in enumerate(part):
                weight[line, : len(rows[index].ids)] = 1.0
            weight = weight.to(ids.device)
            model.base_model(input_ids=ids, use_cache=False)
            place.progress(done + 1, len(parts), "measuring influence")
    for handle in handles:
        handle.remove()
    return [1.0 - total / tokens for total in totals]


def write(source: Path, target: Path, kept: Sequence[int], layers: int) -> None:
    """Write the kept layers' tensors, renumbered, and a configuration to match."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    numbers = {old: new for new, old in enumerate(kept)}
    config, tensors = hf.read_json(source / hf.CONFIG), {}
    family = families.of_config(config)
    layer = re.compile(rf"^{re.escape(family.layers)}\.(\d+)\.(.*)$")
    with safe_open(str(source / hf.WEIGHTS), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            match = layer.match(name)
            if match is None:
                tensors[name] = file.get_tensor(name)
            elif int(match[1]) in numbers:
                tensors[f"{family.layer(numbers[int(match[1])])}.{match[2]}"] = file.get_tensor(name)
    save_file(tensors, str(target / hf.WEIGHTS), metadata={"format": "pt"})
    hf.write_json(target / hf.CONFIG, prune_config(config, kept, layers))
    hf.copy_generation_config(source, target)
    hf.copy_tokenizer(source, target)
    hf.tidy(target)


def prune_config(config: Mapping[str, Any], kept: Sequence[int], layers: int) -> dict[str, Any]:
    """Return the configuration with fewer layers: their number, and the lists with one entry per layer."""
    new = dict(config)
    for name in PER_LAYER:
        value = config.get(name)
        if isinstance(value, list) and len(value) == layers:
            new[name] = [value[index] for index in kept]
    new[families.of_config(config).key("num_hidden_layers")] = len(kept)
    # Qwen2 counts the layers without a sliding window; layer_types, where present, says the same per layer.
    if isinstance(config.get("max_window_layers"), int):
        new["max_window_layers"] = sum(1 for index in kept if index < config["max_window_layers"])
    return new
