"""Movement pruning: weights that a training moves towards zero go, however large they are (arXiv 2005.07683).

Beside each weight a score is trained: minus the gradient times the weight, summed over the steps by the optimiser. A
layer computes with the weights whose scores are largest, as many as the schedule leaves (see gradual); going back,
the choice counts as if it were not there, so that a score goes on being trained when its weight is out, and the
weight may come back. Scores are trained parameters like any other: checkpoints hold them, and which weights are out
after a step follows from them alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import gradual, masks


class Movement:
    """Lets weights go by where the training moves them."""

    def __init__(self, end: float):
        """Take the share of zeros that each layer has in the end."""
        self.end = end
        self._layers: dict[str, tuple[Any, Any, Any]] = {}

    def begin(self, model: Any, names: Iterable[str], zeros: Mapping[str, Any]) -> dict[str, Any]:
        """Let layers compute without what is out, from now on; return the scores, by name.

        Args:
            model: in float32.
            names: the layers from which weights go.
            zeros: where a layer's weights were zero before: they stay so, and are out first.
        """
        import torch

        multiply, modules = _multiply(), dict(model.named_modules())
        for name in names:
            layer = modules[name]
            scores = torch.nn.Parameter(torch.zeros_like(layer.weight))
            out = torch.zeros_like(layer.weight, dtype=torch.bool)
            if name in zeros:
                layer.weight.requires_grad_(True)
                layer.weight.register_hook(lambda gradient, mask=zeros[name]: gradient.masked_fill(mask, 0))

            def forward(given: Any, layer: Any = layer, scores: Any = scores, out: Any = out) -> Any:
                made = multiply(given, layer.weight, scores, out)
                return made if layer.bias is None else made + layer.bias

            layer.forward = forward
            self._layers[name] = (layer, scores, out)
        return {f"{name}.scores": scores for name, (_, scores, _) in self._layers.items()}

    def after_step(self, step: int, total: int, optimiser: Any) -> None:
        """Choose anew which weights are out."""
        import torch

        share = gradual.share_after(step, total, self.end)
        with torch.no_grad():
            for layer, scores, out in self._layers.values():
                least = scores.masked_fill(layer.weight == 0, float("-inf"))
                out.copy_(masks.smallest(least, int(share * out.numel())))

    def finish(self) -> None:
        """Set what is out to zero, and let the layers compute as usual."""
        import torch

        with torch.no_grad():
            for layer, _, out in self._layers.values():
                layer.weight.masked_fill_(out, 0)
                del layer.forward


def _multiply() -> Any:
    """Return the product of inputs and the weights that are not out."""
    import torch

    class Masked(torch.autograd.Function):  # type: ignore[misc]
        """Inputs (… × columns) to outputs (… × rows)."""

        @staticmethod
        def forward(context: Any, given: Any, weight: Any, scores: Any, out: Any) -> Any:
            context.save_for_backward(given, weight)
            # Not saved with the others: it is one tensor for the whole training, and changes between two steps.
            context.out = out
            return torch.nn.functional.linear(given, weight.masked_fill(out, 0))

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            given, weight = context.saved_tensors
            back = gradient @ weight.masked_fill(context.out, 0) if context.needs_input_grad[0] else None
            wide = gradient.flatten(0, -2).T @ given.flatten(0, -2)
            return back, wide.masked_fill(context.out, 0), wide * weight, None

    return Masked.apply
