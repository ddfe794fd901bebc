"""Prune by neurons: every MLP of an encoder becomes narrower by as many, and the file as much smaller.

Which neurons go and what makes up for them is as in decoders: :mod:`..slices`. Layers are gone through one after the
other, each on what the cut ones before it give; a finished layer outlives the process and is put in place without a
look at its inputs, to the same bits. Where layers share their weights (ALBERT) they share the choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from leanmodel_api.classification import TASK
from leanmodel_api.classification import Task as TaskName
from leanmodel_api.errors import Issue
from leanmodel_api.step_rules import prune_issues

from ... import devices, memory
from ...batches import MICRO_TOKENS, by_length
from ...classifiers import models
from ...classifiers.shapes import FEEDS
from ...shapes import ModelShape, forward_flops
from .. import slices
from ..kept import Kept
from ..layerwise import Moments
from ..protocol import Outcome, Place, Task, Work, samples
from ..structure import ByActivations, kept_units, neuron_issues
from .common import FLOAT, activation_bytes, encoder, looked
from .finetune import finish

LAYER = re.compile(r"^.*?layers?\.\d+")
WIDTHS = ("intermediate_size", "hidden_dim")
"""What a configuration calls the inner width of an MLP."""


class EncoderNeurons(ByActivations):
    """Removes neurons.

    Args:
        task: of the model.
    """

    def __init__(self, task: TaskName = TASK):
        """Make the step."""
        self.task = task

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """What the choice depends on, and the task: a decoder's Prune is another step."""
        return {**super().settings(spec), "task": self.task}

    def issues(self, task: Task) -> list[Issue]:
        """Check the share, that something goes and something stays, the family, and that there are rows."""
        if found := prune_issues(task.spec, task.field):
            return found
        shape = encoder(task.shape)
        if shape.family not in FEEDS:
            what = f"Neurons of a {shape.architecture}, whose layers are convolutions in groups"
            return [Issue(f"{task.field}.method", what, "write Depth")]
        found = neuron_issues(task)
        if task.rows is None or not task.rows.train:
            found.append(
                Issue(f"{task.field}.dataSet", "Neurons calibrates on rows, there are none", "give rows")
            )
        return found

    def after(self, task: Task) -> ModelShape:
        """Narrower layers."""
        return encoder(task.shape).with_neurons(kept_units(task.spec, task.shape))

    def memory(self, task: Task) -> int:
        """The model, a batch in one layer, the moments of its MLPs, and what solving for one of them takes."""
        shape, inner = task.shape, task.shape.intermediate
        matrices = FLOAT * inner**2 * (networks(shape) + 4)
        batch = activation_bytes(shape, MICRO_TOKENS, 1)
        return looked(shape, memory.PROCESS_BYTES + FLOAT * shape.parameters + matrices + batch)

    def disk(self, task: Task) -> int:
        """The artifact, and the finished layers."""
        return 2 * FLOAT * self.after(task).parameters

    def work(self, task: Task) -> Work:
        """For each layer a pass up to it, the moments, and a solution."""
        shape, tokens = task.shape, sum(len(row.ids) for row in samples(task))
        inner, passes = shape.intermediate, (shape.layers + 1) / 2
        each = 2.0 * tokens * inner**2 + 3.0 * inner**3
        flops = passes * forward_flops(shape, tokens, 0) + shape.layers * networks(shape) * each
        return Work(flops=flops, bytes=12.0 * shape.parameters, seconds=3.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Cut every layer, and write the model with a configuration to match."""
        import torch

        place.progress(0, 1, "loading")
        shape, count = encoder(task.shape), kept_units(task.spec, task.shape)
        model = models.load(place.source) if shape.labels else models.load_base(place.source)
        texts = Texts(model.base_model, samples(task))
        kept, layers = (
            Kept(place.scratch / "layers", place.fingerprint),
            list(feeds(model.base_model, shape.family)),
        )
        with torch.no_grad():
            for index, (layer, pairs) in enumerate(layers):
                group = f"layer-{index:05d}"
                tensors = kept.load(group)
                if tensors is None:
                    moments = texts.moments(layer, [reads for _, reads in pairs])
                    tensors = {}
                    for writes, reads in pairs:
                        tensors |= narrowed(model.base_model, writes, reads, moments.pop(reads), count)
                    kept.save(group, tensors)
                else:
                    kept.reused += 1
                kept.drop(group)
                for name, tensor in tensors.items():
                    parameter = model.base_model.get_parameter(name)
                    parameter.data = tensor.to(parameter.device)
                place.progress(index + 1, len(layers), f"layer {index + 1}/{len(layers)}")
        for name in WIDTHS:
            if name in model.config.to_dict():
                setattr(model.config, name, count)
        finish(model, place)
        words = f"Neurons, {count} of {shape.intermediate} stay in each of {shape.layers} layers"
        changed = sum(2 * len(pairs) for _, pairs in layers)
        return Outcome(changed, words, kept.reused or None)


def networks(shape: ModelShape) -> int:
    """Return about how many MLPs a layer has: MobileBERT's has four small ones, whose weights tell."""
    return 4 if encoder(shape).family == "mobilebert" else 1


def feeds(model: Any, family: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each layer's name with the names (writes, reads) of its MLPs, in the model's order.

    Args:
        model: without its head.
        family: key of FEEDS.
    """
    writes, reads = FEEDS[family]
    found: dict[str, list[tuple[str, str]]] = {}
    for name, _ in model.named_modules():
        match = LAYER.match(name)
        if match and name.endswith(f".{writes}"):
            start = name.removesuffix(writes)
            found.setdefault(match[0], []).append((name, start + reads))
    yield from found.items()


def narrowed(model: Any, writes: str, reads: str, moments: Any, count: int) -> dict[str, Any]:
    """Return the tensors of an MLP of which ``count`` neurons stay, by their names in the model.

    Args:
        moments: of what goes into the layer that reads the neurons, neurons × neurons.
    """
    before, after = model.get_submodule(writes), model.get_submodule(reads)
    stays = slices.strongest(slices.contributions(after.weight, moments, 1), count)
    return {
        f"{writes}.weight": before.weight[stays].contiguous(),
        f"{writes}.bias": before.bias[stays].contiguous(),
        f"{reads}.weight": slices.refit(after.weight, moments, stays).contiguous(),
    }


class _ReachedError(Exception):
    """The layer that is looked at has been passed: the rest of the model need not be computed."""


class Texts:
    """Calibration rows, asked of the model as often as there are layers."""

    def __init__(self, model: Any, rows: Sequence[Any]):
        """Take the model without its head, and the rows."""
        self.model = model
        self.batches = [models.collate(rows, part, devices.of(model))[:2] for part in by_length(rows)]

    def moments(self, layer: str, names: Sequence[str]) -> dict[str, Any]:
        """Return the second moments of what goes into modules of a layer, padding left out.

        Where layers share their weights the sums are of all of them.
        """
        shared = "groups" in layer
        leaves = None if shared else self.model.get_submodule(layer).register_forward_hook(_leave)
        with Moments(self.model, names) as gathered:
            for ids, mask in self.batches:
                gathered.real = mask.bool()
                with suppress(_ReachedError):
                    self.model(input_ids=ids, attention_mask=mask)
        if leaves is not None:
            leaves.remove()
        return gathered.sums


def _leave(*_: Any) -> None:
    raise _ReachedError
