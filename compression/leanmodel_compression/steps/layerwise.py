"""The decoder layer by layer on calibration rows: what goes into its linear layers, a change, and on from there.

Each layer is changed in view of the inputs that the changed layers before it give (as GPTQ and SparseGPT do). Of a
layer's inputs only their second moments are kept, a matrix of columns × columns, so that the number of rows costs
time and no memory beyond one state per token. Every finished layer outlives the process (see kept): it is put in
place without a look at its inputs, and what follows ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import devices, families, hf
from ..batches import Row, by_length
from . import training
from .kept import Kept, group_of
from .protocol import Place

Change = Callable[[str, Any, Mapping[str, Any]], dict[str, Any]]
"""Takes a layer's name, the layer and the moments of its inputs; returns tensors by their names in the model."""


@dataclass
class Batch:
    """Rows on their way through the layers.

    Attributes:
        states: rows × width × hidden, what goes into the next layer.
        real: rows × width, False at padding.
        calls: for each layer the further arguments that the model gives it (masks, positions), by place and by name.
    """

    states: Any
    real: Any
    calls: list[Any]


def walk(
    place: Place,
    rows: Sequence[Row],
    watched: Sequence[str],
    change: Change,
    put: Callable[[Any, str, Mapping[str, Any]], None],
) -> tuple[dict[str, Any], int | None]:
    """Change every decoder layer, one after the other.

    Args:
        place: where the step works; its source is only read.
        rows: calibration rows.
        watched: linear layers within a decoder layer whose inputs are wanted, such as ``mlp.down_proj``.
        change: gives a layer's new tensors, from the moments of its inputs by the watched names (sums over tokens
            of x xᵀ, float32).
        put: puts new tensors, in float32, into the layer of that name, so that it computes with them.

    Returns:
        The new tensors as they are stored (bf16, on the processor) by name, and the layers taken from an earlier run, or None.
    """
    import torch

    place.progress(0, 1, "loading")
    model = hf.load_model(place.source)
    kept, found = Kept(place.scratch / "layers", place.fingerprint), {}
    family = families.of_model(model)
    layers = list(model.get_submodule(family.layers))
    with torch.no_grad():
        batches = enter(model, layers, rows)
        for index, layer in enumerate(layers):
            name = family.layer(index)
            group = group_of(f"{name}.")
            tensors = kept.load(group)
            if tensors is None:
                changed = change(name, layer, moments(layer, index, batches, watched))
                tensors = {key: value.to(torch.bfloat16).contiguous().cpu() for key, value in changed.items()}
                kept.save(group, tensors)
            else:
                kept.reused += 1
            kept.drop(group)
            put(
                layer,
                name,
                {key: value.float().to(batches[0].states.device) for key, value in tensors.items()},
            )
            for batch in batches:
                batch.states = _call(layer, index, batch)
            found.update(tensors)
            # The wide weights are not needed any more.
            for parameter in layer.parameters():
                parameter.data = torch.empty(0, device=parameter.device)
            place.progress(index + 1, len(layers), f"layer {index + 1}/{len(layers)}")
    return found, kept.reused or None


def enter(model: Any, layers: Sequence[Any], rows: Sequence[Row]) -> list[Batch]:
    """Return the rows in batches as they reach the first layer, with what the model gives each layer besides."""
    import torch

    batches = []
    for part in by_length(rows):
        ids, *_ = training.collate(rows, part, 0, devices.of(model))
        real = torch.zeros(ids.shape, dtype=torch.bool)
        for line, index in enumerate(part):
            real[line, : len(rows[index].ids)] = True
        batch = Batch(None, real.to(ids.device), [])
        for layer in layers:
            layer.forward = _recorder(batch)
        try:
            model.base_model(input_ids=ids, use_cache=False)
        finally:
            for layer in layers:
                del layer.forward
        batches.append(batch)
    return batches


def _recorder(batch: Batch) -> Callable[..., Any]:
    """Return a stand-in for a layer that notes its call and hands its input on."""

    def forward(states: Any, *further: Any, **more: Any) -> Any:
        if batch.states is None:
            batch.states = states
        batch.calls.append((further, more))
        return states

    return forward


def moments(layer: Any, index: int, batches: Sequence[Batch], watched: Sequence[str]) -> dict[str, Any]:
    """Return the second moments of the inputs of a layer's watched modules, padding left out."""
    with Moments(layer, watched) as gathered:
        for batch in batches:
            gathered.real = batch.real
            _call(layer, index, batch)
    return gathered.sums


class Moments:
    """Sums x xᵀ over the inputs of modules while the block runs.

    Attributes:
        real: rows × width, False at padding; set before each batch.
        sums: by the module's name, columns × columns, float32.
    """

    def __init__(self, model: Any, watched: Sequence[str]):
        """Take the module that the names are within."""
        self._model, self._watched = model, watched
        self.real: Any = None
        self.sums: dict[str, Any] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Moments:
        """Begin to listen."""
        for name in self._watched:
            module = self._model.get_submodule(name)
            self._handles.append(module.register_forward_pre_hook(partial(self._gather, name)))
        return self

    def __exit__(self, *_: object) -> None:
        """End listening."""
        for handle in self._handles:
            handle.remove()

    def _gather(self, name: str, _module: Any, args: Any) -> None:
        inputs = args[0][self.real]
        product = inputs.T @ inputs
        self.sums[name] = product if name not in self.sums else self.sums[name].add_(product)


def _call(layer: Any, index: int, batch: Batch) -> Any:
    further, more = batch.calls[index]
    output = layer(batch.states, *further, **more)
    return output[0] if isinstance(output, tuple) else output
