"""GPTQ by llmcompressor's own pipeline, made resumable: finished layers are kept and not computed again.

The pipeline goes through the decoder layer by layer: a pass that gathers Hessians, the correction, and a
second pass that carries the corrected activations on. A layer found in the scratch folder brings its weights
and scales along: no Hessian, no correction. Its activations come out the same, so what follows ends with the
same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import hf
from ..batches import Row
from .kept import Kept, group_of
from .protocol import Place, Task

PARAMETERS = ("weight", "weight_scale", "weight_zero_point")


def quantise(
    model: Any, arguments: dict[str, Any], rows: Sequence[Row], task: Task, place: Place
) -> int | None:
    """Quantise the model's layers in place on calibration rows.

    Returns:
        The number of layers taken from an earlier run, or None.
    """
    import torch
    from llmcompressor import oneshot
    from torch.utils.data import DataLoader

    torch.manual_seed(task.seed)
    kept = Kept(place.scratch / "gptq", place.fingerprint)
    data: Any = [{"input_ids": torch.tensor([row.ids], dtype=torch.long)} for row in rows]
    oneshot(
        model=model,
        dataset=DataLoader(data, batch_size=None, shuffle=False),
        recipe=[_modifier(arguments, kept, place, task.shape.layers)],
        pipeline="sequential",
    )
    return kept.reused or None


def _modifier(arguments: dict[str, Any], kept: Kept, place: Place, layers: int) -> Any:
    """Return a GPTQ modifier that keeps what it finished, takes what it finds, and tells progress."""
    from compressed_tensors.quantization.utils import is_module_quantized
    from llmcompressor.modifiers.gptq import GPTQModifier

    done: list[str] = []
    twins = Twins()

    class Resumable(GPTQModifier):  # type: ignore[misc]
        """GPTQModifier whose finished layers outlive the process, and which sums up an input once."""

        def calibrate_module(self, module: Any, args: Any, _output: Any) -> None:
            if kept.load(group_of(self._module_names[module])) is not None:
                return
            first = twins.first(module, args[0])
            if first is module:
                super().calibrate_module(module, args, _output)
            # Nobody writes into it: a matrix is divided into a new one before it is factorised.
            self._hessians[module] = self._hessians[first]
            self._num_samples[module] = self._num_samples[first]

        def on_sequential_epoch_end(self, state: Any, event: Any, modules: Any, **kwargs: Any) -> None:
            grids = [module for module in modules if is_module_quantized(module)]
            names = {module: self._module_names[module] for module in grids}
            for group in sorted({group_of(name) for name in names.values()}):
                members = [module for module in grids if group_of(names[module]) == group]
                tensors = kept.load(group)
                if tensors is not None:
                    take(members, names, tensors)
                    kept.drop(group)
                    kept.reused += 1
                else:
                    with stored_scales(members):
                        super().on_sequential_epoch_end(state, event, members, **kwargs)
                    kept.save(group, tensors_of(members, names))
                done.append(group)
                place.progress(len(done), layers, f"layer {len(done)}/{layers}")

    return Resumable(**arguments)


class Twins:
    """Modules that always read the same tensor, as queries, keys and values do: one matrix of inputs serves them all."""

    def __init__(self) -> None:
        """Know of none yet."""
        self._firsts: dict[Any, Any] = {}
        self._last: tuple[Any, Any] = (None, None)

    def first(self, module: Any, given: Any) -> Any:
        """Return the module that read this very tensor first; itself where none did.

        Raises:
            RuntimeError: it read another module's input before, and does not now: their sums are one already.
        """
        tensor, reader = self._last
        if given is not tensor:
            self._last, reader = (given, module), module
        if self._firsts.setdefault(module, reader) is not reader:
            raise RuntimeError("a layer reads now its own input, now another layer's: report this")
        return reader


def take(members: Sequence[Any], names: dict[Any, str], tensors: dict[str, Any]) -> None:
    """Put kept weights and scales into the modules."""
    for module in members:
        for parameter in PARAMETERS:
            value = tensors.get(f"{names[module]}.{parameter}")
            if value is not None:
                getattr(module, parameter).data.copy_(value)


def tensors_of(members: Sequence[Any], names: dict[Any, str]) -> dict[str, Any]:
    """Return the weights and scales of a finished layer's modules."""
    return {
        f"{names[module]}.{parameter}": getattr(module, parameter).detach().clone()
        for module in members
        for parameter in PARAMETERS
        if getattr(module, parameter, None) is not None
    }


class stored_scales:  # noqa: N801 - used as a statement
    """Let the modules' observers give scales as they will be stored, for the time of the block."""

    def __init__(self, members: Sequence[Any]):
        """Take the modules whose observers are meant."""
        self._members = members

    def __enter__(self) -> None:
        """Wrap ``get_qparams``."""
        for module in self._members:
            observer = module.weight_observer
            original = observer.get_qparams

            def rounded(original: Any = original) -> dict[str, Any]:
                found = dict(original())
                found["scale"] = hf.as_stored(found["scale"])
                return found

            observer.get_qparams = rounded

    def __exit__(self, *_: object) -> None:
        """Take the wrappers off."""
        for module in self._members:
            if "get_qparams" in vars(module.weight_observer):
                del module.weight_observer.get_qparams
