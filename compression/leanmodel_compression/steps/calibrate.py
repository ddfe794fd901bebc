"""Wanda and SparseGPT by llmcompressor's own pipeline, made resumable: finished layers are not computed again.

The pipeline goes through the decoder layer by layer: a pass that gathers what the method wants to know of the
inputs, the cut, and a second pass that carries the cut layer's outputs on. A layer found in the scratch folder
brings its weights along: nothing is gathered, nothing is cut, and the outputs come out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import hf
from ..batches import Row
from ..shapes import Linear
from .kept import Kept, group_of
from .protocol import Place, Task
from .quantize import quiet

BLOCK = 128
DAMPENING = 0.01


def prune(
    linears: Sequence[Linear], share: float, rows: Sequence[Row], task: Task, place: Place
) -> tuple[dict[str, Any], int | None]:
    """Cut the layers on calibration rows.

    Args:
        linears: the layers that are meant.
        share: the share of their weights that goes.
        rows: calibration rows.
        task: the step.
        place: where it works; its source is only read.

    Returns:
        The cut layers' weights in bf16 by their names, and the number of layers taken from an earlier run, or None.
    """
    import torch
    from llmcompressor import oneshot
    from llmcompressor.core import reset_session
    from torch.utils.data import DataLoader

    quiet()
    torch.manual_seed(task.seed)
    place.progress(0, 1, "loading")
    model = hf.load_model(place.source)
    model.config._name_or_path = str(place.source)
    kept = Kept(place.scratch / "zeros", place.fingerprint)
    arguments = {
        "sparsity": share,
        "mask_structure": "2:4" if task.spec.structure == "2:4" else "0:0",
        "targets": [linear.name for linear in linears],
    }
    groups = len({group_of(linear.name) for linear in linears})
    data: Any = [{"input_ids": torch.tensor([row.ids], dtype=torch.long)} for row in rows]
    oneshot(
        model=model,
        dataset=DataLoader(data, batch_size=None, shuffle=False),
        recipe=[_modifier(task.spec.method, arguments, kept, place, groups)],
        pipeline="sequential",
    )
    modules = dict(model.named_modules())
    found = {}
    for linear in linears:
        found[f"{linear.name}.weight"] = modules[linear.name].weight.detach().to(torch.bfloat16).cpu()
        # The wide copy is not needed any more.
        modules[linear.name].weight.data = torch.empty(0)
    reset_session()
    return found, kept.reused or None


def _modifier(method: str, arguments: dict[str, Any], kept: Kept, place: Place, groups: int) -> Any:
    """Return a modifier that keeps what it finished, takes what it finds, and tells progress."""
    from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier
    from llmcompressor.modifiers.pruning.wanda import WandaPruningModifier

    done: list[str] = []
    kind = WandaPruningModifier if method == "Wanda" else SparseGPTModifier
    if method == "SparseGPT":
        arguments = {**arguments, "block_size": BLOCK, "dampening_frac": DAMPENING}

    class Resumable(kind):  # type: ignore[misc,valid-type]
        """The modifier whose finished layers outlive the process."""

        def name_of(self, module: Any) -> str:
            # A target that is itself a linear layer gets its name with a dot behind it.
            return str(self._module_names[module]).rstrip(".")

        def calibrate_module(self, module: Any, args: Any, _output: Any) -> None:
            if kept.load(group_of(self.name_of(module))) is None:
                super().calibrate_module(module, args, _output)

        def on_sequential_epoch_end(self, state: Any, event: Any, modules: Any, **kwargs: Any) -> None:
            members = [module for module in modules if module in self._module_names]
            # Cuts what was calibrated; a layer that was found was not.
            super().on_sequential_epoch_end(state, event, modules=modules, **kwargs)
            for group in sorted({group_of(self.name_of(module)) for module in members}):
                mine = {self.name_of(m): m for m in members if group_of(self.name_of(m)) == group}
                tensors = kept.load(group)
                if tensors is None:
                    kept.save(group, {name: module.weight.detach().clone() for name, module in mine.items()})
                else:
                    for name, module in mine.items():
                        module.weight.data.copy_(tensors[name])
                    kept.drop(group)
                    kept.reused += 1
                done.append(group)
                place.progress(len(done), groups, f"layer {len(done)}/{groups}")

    return Resumable(**arguments)
