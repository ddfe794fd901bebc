"""Prune width: channels of the hidden state go out of the whole model, the token table included.

A channel is the same in every layer, because layers add to one hidden state; so the choice is one for all: those stay
whose normalised values are largest in the mean over all norms and tokens of the calibration rows (Minitron,
arXiv 2407.14679). A norm divides by the root mean square of what is left, which is another one than before; each
norm's weights are scaled by how much it is in the mean over tokens, measured in a second pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.errors import Issue
from leanmodel_api.step_rules import prune_issues

from .. import devices, hf, memory
from ..batches import Row, by_length
from ..families import HEAD, Family, of_model
from ..shapes import ModelShape, forward_flops
from . import sparse, training
from .protocol import Outcome, Place, Task, Work, checked, samples
from .structure import ByActivations

# Widths stay multiples of this where they are: what kernels and small groups of scales like.
MULTIPLE = 8


class WidthPruning(ByActivations):
    """Removes channels of the hidden state."""

    methods = ("Width",)

    def issues(self, task: Task) -> list[Issue]:
        """Check the share, that engines load what is left, and that there are rows."""
        spec, field, shape = task.spec, task.field, task.shape
        found = prune_issues(spec, field)
        if found:
            return found
        if kept_width(spec, shape) >= shape.hidden:
            step = unit(shape)
            words = f"{spec.ratio} takes none of {shape.hidden} channels, which go in multiples of {step}"
            least = math.ceil(500 * step / shape.hidden) / 1000
            advice = f'write at least "{least}"' if step < shape.hidden else "write Neurons or Depth"
            found.append(Issue(f"{field}.ratio", words, advice))
        if task.rows is None or not task.rows.train:
            found.append(Issue(f"{field}.dataSet", "Width calibrates on rows, there are none", "give rows"))
        return found

    def after(self, task: Task) -> ModelShape:
        """A narrower model; the heads keep their width."""
        return replace(task.shape, hidden=kept_width(task.spec, task.shape))

    def memory(self, task: Task) -> int:
        """Two forward passes over the samples."""
        return checked(task, self.after(task), memory.forward_bytes(task.shape, 2048, 0))

    def disk(self, task: Task) -> int:
        """The artifact in bf16."""
        return 2 * self.after(task).parameters

    def work(self, task: Task) -> Work:
        """Two forward passes over the samples."""
        tokens = sum(len(row.ids) for row in samples(task))
        flops = 2 * forward_flops(task.shape, tokens, 0)
        return Work(flops=flops, bytes=20.0 * task.shape.parameters, seconds=2.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Choose the channels, and write every tensor without the others."""
        model = hf.load_model(place.source)
        count = kept_width(task.spec, task.shape)
        rows, passes = samples(task), Passes(place)
        kept = largest(importance(model, rows, passes), count)
        factors = scales(model, rows, kept, passes)
        del model
        memory.give_back()
        tensors = sparse.read(place)
        changed = {
            name: cut(name, whole, task.shape.decoder, kept, factors) for name, whole in tensors.items()
        }
        sparse.write(changed, place)
        config = hf.read_json(place.target / hf.CONFIG)
        # Written out: it does not follow from hidden / heads any more.
        hf.write_json(
            place.target / hf.CONFIG, {**config, "hidden_size": count, "head_dim": task.shape.head_dim}
        )
        modules = sum(tensors[name].shape != value.shape for name, value in changed.items())
        detail = f"Width, {count} of {task.shape.hidden} channels stay"
        spread = {"normScaleLeast": min(factors.values()), "normScaleMost": max(factors.values())}
        return Outcome(modules, detail, None, spread)


class Passes:
    """Tells how far two passes over the rows are."""

    def __init__(self, place: Place):
        """Begin with the first."""
        self._place, self._begun = place, 0

    def over(self, rows: Sequence[Row], device: Any) -> Iterator[tuple[Any, Any]]:
        """Yield ids (rows × width) and which of them are no padding, on the model's device."""
        import torch

        parts = by_length(rows)
        for done, part in enumerate(parts):
            ids, *_ = training.collate(rows, part, 0, device)
            lengths = torch.tensor([len(rows[index].ids) for index in part])
            yield ids, (torch.arange(ids.shape[1])[None] < lengths[:, None]).to(device)
            words = "measuring channels" if self._begun == 0 else "measuring norms"
            self._place.progress(self._begun * len(parts) + done + 1, 2 * len(parts), words)
        self._begun += 1


def norms(model: Any) -> dict[str, Any]:
    """Return the norms of the hidden state by name."""
    family = of_model(model)
    ends = (*(f".{name}" for name in family.norms), family.norm)
    return {name: module for name, module in model.named_modules() if name.endswith(ends)}


def importance(model: Any, rows: Sequence[Row], passes: Passes) -> Any:
    """Return each channel's importance: the mean size of its normalised values over tokens, summed over norms."""
    import torch

    total = torch.zeros(model.config.hidden_size, dtype=torch.double, device=devices.of(model))
    real, tokens = torch.zeros(0), 0

    def measure(_module: Any, _given: Any, output: Any) -> None:
        total.add_(output[real].double().abs().sum(0))

    handles = [norm.register_forward_hook(measure) for norm in norms(model).values()]
    with torch.no_grad():
        for ids, real in passes.over(rows, devices.of(model)):  # noqa: B007 - the hooks read it
            model.base_model(input_ids=ids, use_cache=False)
            tokens += int(real.sum())
    for handle in handles:
        handle.remove()
    return total.cpu() / tokens


def largest(scores: Any, count: int) -> Any:
    """Return the indices of the ``count`` largest scores in ascending order; of equal ones the first stay."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def scales(model: Any, rows: Sequence[Row], kept: Any, passes: Passes) -> dict[str, float]:
    """Return for each norm what its root mean square becomes by the cut: the mean over tokens of new by old."""
    import torch

    totals, real, tokens = dict.fromkeys(norms(model), 0.0), torch.zeros(0), 0
    stays = kept.to(devices.of(model))

    def hook(name: str) -> Any:
        def measure(_module: Any, given: Any) -> None:
            states = given[0][real].double().square()
            totals[name] += float((states[:, stays].mean(-1) / states.mean(-1)).sqrt().sum())

        return measure

    handles = [norm.register_forward_pre_hook(hook(name)) for name, norm in norms(model).items()]
    with torch.no_grad():
        for ids, real in passes.over(rows, devices.of(model)):  # noqa: B007 - the hooks read it
            model.base_model(input_ids=ids, use_cache=False)
            tokens += int(real.sum())
    for handle in handles:
        handle.remove()
    return {name: total / tokens for name, total in totals.items()}


def cut(name: str, value: Any, family: Family, kept: Any, factors: Mapping[str, float]) -> Any:
    """Return a tensor without the channels that go; one that has none stays as it is."""
    at, _, kind = name.rpartition(".")
    if at in factors:
        return (value[kept].float() * factors[at]).to(value.dtype)
    # Rows (and biases) that add to the hidden state; columns that read it, or are it.
    if at.endswith(tuple(f".{one.name}" for one in family.projections if one.writes == ("hidden",))):
        return value[kept].contiguous()
    reads = tuple(f".{one.name}" for one in family.projections if one.reads == "hidden")
    if kind == "weight" and (at.endswith(reads) or at in (family.table, HEAD)):
        return value[:, kept].contiguous()
    return value


def unit(shape: ModelShape) -> int:
    """Return the channels that go together, so that engines and transformers load what is left."""
    heads = shape.heads if shape.decoder.dividing_heads else 1
    return math.lcm(heads, math.gcd(shape.hidden, MULTIPLE))


def kept_width(spec: Any, shape: ModelShape) -> int:
    """Return the channels that stay, a whole number of units, at least one."""
    step = unit(shape)
    return max(step, step * math.floor((1 - number(spec.ratio)) * shape.hidden / step + 0.5))
