"""What lies inside two models, held against each other: hidden states, and relations among tokens (MiniLM).

Hidden states by their cosine (DistilBERT, arXiv 1910.01108). Relations: how tokens relate by queries, keys and values.

Wang et al. 2020, *MiniLM*, arXiv 2002.10957; with queries, keys and values alike and relation heads of any number, Wang
et al. 2021, *MiniLMv2*, arXiv 2012.15828. Neither widths nor heads of the two models need to agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ..memory import FLOAT
from ..shapes import ModelShape

KINDS = {"query": 0, "q_lin": 0, "key": 1, "k_lin": 1, "value": 2, "v_lin": 2}
"""Last part of a module's name -> query, key or value; the same in every layer of a family."""
HIDDEN_SCORE = -1e4
"""Stands for a masked key: its share is exactly zero, and differences of its logarithms stay finite."""

Vectors = tuple[Any, Any, Any]


class Heard:
    """Queries, keys and values of some layers of a model's last forward pass.

    A layer is the n-th call of its module, so that layers which share one (ALBERT's, all of them) are no other case.
    """

    def __init__(self, layers: Collection[int]) -> None:
        """Wait for the first pass."""
        self._layers, self._calls = frozenset(layers), Counter[int]()
        self._found: dict[tuple[int, int], Any] = {}

    def keep(self, first: int, parts: Callable[[], Sequence[Any]]) -> None:
        """Keep what a module of the next layer gave.

        Args:
            first: what its output begins with: 0 for queries, 1 for keys, 2 for values.
            parts: makes them of the output, in that order; asked where the layer is one of those that are kept.
        """
        layer = self._calls[first]
        self._calls[first] += 1
        if layer in self._layers:
            for at, part in enumerate(parts()):
                self._found[layer, first + at] = part

    def take(self) -> dict[int, Vectors]:
        """Return what the pass left, by layer, and wait for the next one; each (texts, tokens, width)."""
        found = {
            layer: (self._found[layer, 0], self._found[layer, 1], self._found[layer, 2])
            for layer in self._layers
        }
        self._calls.clear()
        self._found.clear()
        return found


class Recorder(Heard):
    """What an encoder's modules give: one module for queries, one for keys and one for values."""

    def __init__(self, model: Any, layers: Collection[int]) -> None:
        """Listen to the model from now on."""
        super().__init__(layers)
        for name, module in model.named_modules():
            kind = KINDS.get(name.rpartition(".")[2])
            if kind is not None:
                module.register_forward_hook(self._hook(kind))

    def _hook(self, kind: int) -> Any:
        def hook(module: Any, _inputs: Any, output: Any) -> None:
            # SqueezeBERT's layers are convolutions: (texts, width, tokens).
            turned = type(module).__name__ == "Conv1d"
            self.keep(kind, lambda: [output.transpose(1, 2) if turned else output])

        return hook


def even(mask: Any) -> Any:
    """Return weights with which every text counts 1, spread evenly over its real tokens (texts, tokens)."""
    return mask / mask.sum(dim=1, keepdim=True)


def hidden_loss(
    mine: Sequence[Any], told: Sequence[Any], weight: Any, pairs: Sequence[tuple[int, int]]
) -> Any:
    """Return the weighted sum over tokens of (1 - cosine) of hidden states, the mean over pairs of layers.

    Args:
        mine: the student's states: embeddings, then after each layer; each (texts, tokens, hidden).
        told: the teacher's.
        weight: of each token, 0 where it is not real (texts, tokens).
        pairs: layers of the student and of the teacher, from 0.
    """
    import torch

    total: Any = 0.0
    for layer, of in pairs:
        cosine = torch.nn.functional.cosine_similarity(mine[layer + 1], told[of + 1], dim=-1)
        total = total + ((1 - cosine) * weight).sum()
    return total / len(pairs)


def relation_loss(
    mine: Sequence[Vectors], told: Sequence[Vectors], seen: Any, weight: Any, heads: int
) -> Any:
    """Return the weighted sum over tokens of KL(teacher ‖ student) of their relations: the mean over pairs, kinds, heads.

    Args:
        mine: the student's queries, keys and values of each pair of layers.
        told: the teacher's.
        seen: 1 where a token may be related to: real ones (texts, tokens), or for each token those before it (texts,
            tokens, tokens).
        weight: of each token, 0 where it is not real (texts, tokens).
        heads: relation heads; divides both widths.
    """
    import torch

    total: Any = 0.0
    for one, other in zip(mine, told, strict=True):
        for student, teacher in zip(one, other, strict=True):
            wanted, found = relations(teacher, seen, heads), relations(student, seen, heads)
            apart = torch.nn.functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)
            total = total + (apart.mean(dim=1) * weight).sum()
    return total / (3 * len(mine))


def relations(vectors: Any, seen: Any, heads: int) -> Any:
    """Return the log-softmax of scaled dot products of the vectors with themselves (texts, heads, tokens, tokens)."""
    import torch

    texts, tokens, width = vectors.shape
    cut = vectors.reshape(texts, tokens, heads, width // heads).transpose(1, 2)
    scores = cut @ cut.transpose(-1, -2) / (width // heads) ** 0.5
    mask = seen[:, None, None, :] if seen.ndim == 2 else seen[:, None]
    return torch.log_softmax(scores.masked_fill(mask == 0, HIDDEN_SCORE), dim=-1)


def relation_bytes(tokens: int, longest: int, heads: int, pairs: int, shape: ModelShape) -> int:
    """Return what the loss of a micro-batch holds: of each pair and kind scores, log-softmax, divergence, gradients.

    Args:
        tokens: of the micro-batch, padding included.
        longest: tokens of its longest text.
        heads: relation heads.
        pairs: of layers.
        shape: the wider model, whose vectors are kept.
    """
    square = FLOAT * tokens * longest * heads
    return pairs * 3 * (6 * square + 2 * FLOAT * tokens * shape.hidden)
