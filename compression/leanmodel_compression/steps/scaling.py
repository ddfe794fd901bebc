"""SmoothQuant and AWQ by llmcompressor's own pipeline, made resumable: channels are scaled, then rounded to nearest.

Both multiply a linear layer's columns and divide what feeds them, so that the model computes what it did and rounds
better. SmoothQuant (arXiv 2211.10438) moves the range of activations into the weights, for W8A8; AWQ
(arXiv 2306.00978) searches the scales under which the rounded weights answer most alike, for W4A16. A decoder layer
whose scaled weights are found in the scratch folder takes them: no statistics, no search, the same bits after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import memory
from ..batches import Row
from ..shapes import ModelShape
from .kept import Kept, group_of
from .protocol import Place, Task

# The share of the activations' range that moves, as in the paper.
STRENGTH = 0.5
# Scales that AWQ tries for each group of layers.
GRID = 20


def quantise(
    model: Any, arguments: dict[str, Any], rows: Sequence[Row], task: Task, place: Place
) -> int | None:
    """Scale and round the model's layers in place, on calibration rows.

    Args:
        model: in float32.
        arguments: which layers are rounded, and how.
        rows: calibration rows.
        task: the step; its algorithm is SmoothQuant or AWQ.
        place: where finished layers are kept and progress is told.

    Returns:
        The number of layers taken from an earlier run, or None.
    """
    import torch
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from torch.utils.data import DataLoader

    torch.manual_seed(task.seed)
    kept = Kept(place.scratch / "scaled", place.fingerprint)
    kind = _smoothquant if task.spec.algorithm == "SmoothQuant" else _awq
    data: Any = [{"input_ids": torch.tensor([row.ids], dtype=torch.long)} for row in rows]
    oneshot(
        model=model,
        dataset=DataLoader(data, batch_size=None, shuffle=False),
        recipe=[kind(Scaled(model, kept, place, task.shape.layers)), QuantizationModifier(**arguments)],
        pipeline="sequential",
        # Scaling changes no layer's answer, and weights are rounded at the end: what the pass that watches gives is what
        # the next layer gets, a second pass would give the same.
        propagate_error=False,
    )
    return kept.reused or None


def search_bytes(shape: ModelShape, lengths: Sequence[int]) -> int:
    """Return what AWQ's search holds: the inputs of a decoder layer's parts, outputs twice, and a copy of weights.

    Half of it again is the heap's: outputs of all tries come and go between what stays.
    """
    per_token = 6 * shape.hidden + 2 * shape.heads * shape.head_dim + 2 * shape.intermediate
    largest = max(linear.columns * linear.rows for linear in shape.linears()[:-1])
    return int(1.5 * memory.FLOAT * (sum(lengths) * per_token + 4 * largest))


class Scaled:
    """The decoder layers whose scaling is finished, and what is told of them."""

    def __init__(self, model: Any, kept: Kept, place: Place, layers: int):
        """Take the model, the store of finished layers, and who is told of progress."""
        self._names = {module: name for name, module in model.named_modules()}
        self._kept, self._place, self._layers = kept, place, layers
        self._done: set[str] = set()

    def missing(self, name: str) -> bool:
        """Say whether the layer of a module is still to be scaled."""
        return self._kept.load(group_of(name)) is None

    def finish(self, modules: Sequence[Any]) -> None:
        """Keep the weights of the decoder layer that was scaled, or put those in place that were found."""
        members: dict[str, dict[str, Any]] = {}
        for module in modules:
            name = self._names.get(module, "")
            if ".layers." in f".{name}.":
                for kind, parameter in module.named_parameters(recurse=False):
                    if kind in ("weight", "bias"):
                        members.setdefault(group_of(name), {})[f"{name}.{kind}"] = parameter
        for group, parameters in sorted(members.items()):
            if group in self._done:
                continue
            tensors = self._kept.load(group)
            if tensors is None:
                self._kept.save(group, {name: value.detach().clone() for name, value in parameters.items()})
            else:
                for name, parameter in parameters.items():
                    parameter.data.copy_(tensors[name])
                self._kept.drop(group)
                self._kept.reused += 1
            self._done.add(group)
            self._place.progress(len(self._done), self._layers, f"layer {len(self._done)}/{self._layers}")


def _smoothquant(scaled: Scaled) -> Any:
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    class Resumable(SmoothQuantModifier):  # type: ignore[misc]
        """SmoothQuantModifier whose finished layers outlive the process."""

        def _resolve_mappings(self, model: Any) -> Any:
            found = super()._resolve_mappings(model)
            return [mapping for mapping in found if scaled.missing(mapping.smooth_name)]

        def on_sequential_epoch_end(self, state: Any, event: Any, modules: Any, **kwargs: Any) -> None:
            super().on_sequential_epoch_end(state, event, modules=modules, **kwargs)
            scaled.finish(modules)

    return Resumable(smoothing_strength=STRENGTH)


def _awq(scaled: Scaled) -> Any:
    import torch
    from llmcompressor.modifiers.transform.awq import AWQModifier

    class Resumable(AWQModifier):  # type: ignore[misc]
        """AWQModifier whose finished layers outlive the process."""

        def _set_resolved_mappings(self, model: Any) -> None:
            super()._set_resolved_mappings(model)
            found = self._resolved_mappings  # type: ignore[has-type]
            self._resolved_mappings = [mapping for mapping in found if scaled.missing(mapping.smooth_name)]

        def _setup_activation_cache_hooks(self) -> None:
            super()._setup_activation_cache_hooks()
            # llmcompressor pins what it keeps (its #2813) without asking whether there is a device to copy it to.
            if not torch.cuda.is_available():
                for cache in self._parent_args_cache.values():
                    cache.pin_memory = lambda *_: None

        def on_sequential_epoch_end(self, state: Any, event: Any, modules: Any, **kwargs: Any) -> None:
            super().on_sequential_epoch_end(state, event, modules=modules, **kwargs)
            scaled.finish(modules)

    return Resumable(n_grid=GRID)
