"""Prune structure: neurons of the MLP, or attention heads, go out of every layer, and its tensors become smaller.

Every layer loses as many, so that the plain configuration says it all and every engine loads the result; which ones
is each layer's own choice. Heads go by key-value group: the query heads of a group read the same keys, and engines
take the number of query heads to be a multiple of the groups. How they are chosen and what makes up for them:
see slices. Layers are gone through one after the other, each on what the cut ones before it give: see layerwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.errors import Issue
from leanmodel_api.step_rules import prune_issues

from .. import hf, memory
from ..shapes import ModelShape, forward_flops
from . import layerwise, slices, sparse
from .protocol import Outcome, Place, Task, Work, checked, samples

MAX_LENGTH = 512
# Neurons stay in multiples of this where the model has them so: the smallest group of W4A16 goes on fitting.
MULTIPLE = 32


class ByActivations:
    """What prunings have in common that choose by what calibration rows do in the model."""

    name = "Prune"
    version = 1
    libraries = ("torch", "transformers")
    teaches = False

    def data_set(self, spec: Any) -> tuple[bool, str | None]:
        """The one that the step names, or the only one."""
        return True, spec.data_set

    def max_length(self, spec: Any) -> int | None:
        """Calibration rows are cut to the step's own length."""
        return int(spec.max_length or MAX_LENGTH)

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """What the choice depends on; rows count by their content."""
        return {
            "method": spec.method,
            "ratio": number(spec.ratio),
            "samples": spec.samples,
            "max_length": self.max_length(spec),
        }


class StructurePruning(ByActivations):
    """Removes neurons or heads."""

    methods = ("Neurons", "Heads")

    def issues(self, task: Task) -> list[Issue]:
        """Check the share, that something goes and something stays, that engines load it, and that there are rows."""
        spec, field = task.spec, task.field
        found = prune_issues(spec, field)
        if found:
            return found
        found += head_issues(task) if spec.method == "Heads" else neuron_issues(task)
        if task.rows is None or not task.rows.train:
            found.append(
                Issue(f"{field}.dataSet", f"{spec.method} calibrates on rows, there are none", "give rows")
            )
        return found

    def after(self, task: Task) -> ModelShape:
        """Narrower layers."""
        count = kept_units(task.spec, task.shape)
        if task.spec.method == "Neurons":
            return replace(task.shape, intermediate=count)
        return replace(task.shape, kv_heads=count, heads=count * group_heads(task.shape))

    def memory(self, task: Task) -> int:
        """The model in float32, one state per token, and the moments of the widest input with what solving takes."""
        lengths = [len(row.ids) for row in samples(task)]
        calibrating = memory.calibration_bytes(task.shape, lengths, True)
        return checked(task, self.after(task), memory.loaded_bytes(task.shape) + calibrating)

    def disk(self, task: Task) -> int:
        """The artifact, and the finished layers."""
        return 4 * self.after(task).parameters

    def work(self, task: Task) -> Work:
        """Two passes over the samples, the moments, and one solution per layer."""
        tokens = sum(len(row.ids) for row in samples(task))
        columns = (
            task.shape.intermediate
            if task.spec.method == "Neurons"
            else task.shape.heads * task.shape.head_dim
        )
        each = 2.0 * tokens * columns**2 + 3.0 * columns**3 + 2.0 * task.shape.hidden * columns**2
        flops = 2 * forward_flops(task.shape, tokens, 0) + task.shape.layers * each
        return Work(flops=flops, bytes=30.0 * task.shape.parameters, seconds=3.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Cut every layer, write its tensors among the others, and a configuration to match."""
        spec, shape = task.spec, task.shape
        cut = Cut(spec.method, shape, kept_units(spec, shape))
        changed, resumed_at = layerwise.walk(place, samples(task), [cut.output], cut.change, put)
        memory.give_back()
        sparse.write({**sparse.read(place), **changed}, place)
        config = {**hf.read_json(place.target / hf.CONFIG), **named(self.after(task), spec.method)}
        hf.write_json(place.target / hf.CONFIG, config)
        modules = len({name.rpartition(".")[0] for name in changed})
        return Outcome(modules, describe(spec, shape, cut.count), resumed_at, {})


class Cut:
    """How one layer is cut: the projection that reads the units, those that write them, and how many stay."""

    def __init__(self, method: str, shape: ModelShape, count: int):
        """Take the method, the shape that comes in, and the units (neurons or groups) that stay."""
        self.count = count
        units = {"inner": 1}
        if method == "Heads":
            units = {"queries": group_heads(shape) * shape.head_dim, "keys": shape.head_dim}
        # The projection whose columns are the units.
        reads = next(iter(units))
        self.output, self.width = shape.decoder.reading(reads).name, units[reads]
        self.inputs: dict[str, list[tuple[int, int]]] = {}
        for one in shape.decoder.projections:
            parts, begins = [], 0
            for part in one.writes:
                if part in units:
                    parts.append((begins, units[part]))
                begins += shape.widths[part]
            if parts:
                self.inputs[one.name] = parts
        """For each projection that writes units: where they begin among its rows, and how many rows are one."""

    def change(self, name: str, layer: Any, moments: Mapping[str, Any]) -> dict[str, Any]:
        """Return a layer's cut tensors by name."""
        import torch

        output, gram = layer.get_submodule(self.output), moments[self.output]
        kept = slices.strongest(slices.contributions(output.weight, gram, self.width), self.count)
        columns = slices.spread(kept, self.width)
        found = {f"{name}.{self.output}.weight": slices.refit(output.weight, gram, columns)}
        for at, parts in self.inputs.items():
            rows = torch.cat([begins + slices.spread(kept, width) for begins, width in parts])
            module = layer.get_submodule(at)
            found[f"{name}.{at}.weight"] = module.weight[rows]
            if module.bias is not None:
                found[f"{name}.{at}.bias"] = module.bias[rows]
        return found


def put(layer: Any, name: str, tensors: Mapping[str, Any]) -> None:
    """Put cut tensors into a layer; its attention finds the number of heads from their widths."""
    for key, value in tensors.items():
        at, _, kind = key.removeprefix(f"{name}.").rpartition(".")
        getattr(layer.get_submodule(at), kind).data = value


def group_heads(shape: ModelShape) -> int:
    """Return the query heads of one key-value group."""
    return shape.heads // shape.kv_heads


def kept_units(spec: Any, shape: ModelShape) -> int:
    """Return the neurons (in whole multiples) or key-value groups of each layer that stay, at least one multiple."""
    if spec.method == "Heads":
        return max(1, shape.kv_heads - math.floor(number(spec.ratio) * shape.kv_heads + 0.5))
    step = math.gcd(shape.intermediate, MULTIPLE)
    return max(step, step * math.floor((1 - number(spec.ratio)) * shape.intermediate / step + 0.5))


def neuron_issues(task: Task) -> list[Issue]:
    """Return why the share takes no neurons."""
    width = task.shape.intermediate
    if kept_units(task.spec, task.shape) < width:
        return []
    step = math.gcd(width, MULTIPLE)
    found = f"{task.spec.ratio} takes none of {width} neurons, which go in multiples of {step}"
    least = math.ceil(1000 * step / width) / 1000
    advice = f'write at least "{least}"' if step < width else "remove the step"
    return [Issue(f"{task.field}.ratio", found, advice)]


def head_issues(task: Task) -> list[Issue]:
    """Return why heads cannot go, or not as many."""
    shape, field = task.shape, task.field
    if shape.kv_heads < 2 or shape.heads % shape.kv_heads:
        found = (
            f"Heads of a model with {shape.heads} heads in {shape.kv_heads} key-value groups, which go whole"
        )
        return [Issue(f"{field}.method", found, "write Neurons or Depth")]
    count = kept_units(task.spec, shape)
    if count == shape.kv_heads:
        found = f"{task.spec.ratio} takes none of {shape.kv_heads} key-value groups"
        return [Issue(f"{field}.ratio", found, f'write at least "{1 / shape.kv_heads:.2f}"')]
    heads = count * group_heads(shape)
    if shape.decoder.dividing_heads and shape.hidden % heads:
        fits = [
            groups for groups in range(1, shape.kv_heads) if shape.hidden % (groups * group_heads(shape)) == 0
        ]
        found = (
            f"{heads} heads would stay, and transformers loads a {shape.architecture} only if they divide its "
            f"hidden width of {shape.hidden}"
        )
        ratios = ", ".join(f'"{1 - groups / shape.kv_heads:.3g}"' for groups in reversed(fits))
        return [Issue(f"{field}.ratio", found, f"write one of {ratios}" if fits else "write method: Neurons")]
    return []


def named(shape: ModelShape, method: str) -> dict[str, int]:
    """Return the settings of a configuration that the cut changes, as the family calls them."""
    return {shape.decoder.key(name): value for name, value in settings_after(shape, method).items()}


def settings_after(shape: ModelShape, method: str) -> dict[str, int]:
    """Return the settings that the cut changes."""
    if method == "Neurons":
        return {"intermediate_size": shape.intermediate}
    # Written out: it does not follow from hidden / heads any more.
    return {
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
    }


def describe(spec: Any, shape: ModelShape, count: int) -> str:
    """Return what stays, in short."""
    if spec.method == "Neurons":
        return f"Neurons, {count} of {shape.intermediate} stay in each of {shape.layers} layers"
    heads = f"{count * group_heads(shape)} of {shape.heads} heads"
    return (
        f"Heads, {count} of {shape.kv_heads} key-value groups ({heads}) stay in each of {shape.layers} layers"
    )
