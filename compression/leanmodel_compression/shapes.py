"""What a decoder's configuration says about its layers: widths, parameters, work. No weights are read."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from leanmodel_api.low_rank import INNER, OUTER, RANKS
from leanmodel_api.shared import LAYERS as SHARED

from .families import HEAD, Family, family_of, of_config

GGUF_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


@dataclass(frozen=True)
class Linear:
    """One linear layer: its name in the model, and its input and output widths."""

    name: str
    columns: int
    rows: int


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder; every count is in elements.

    Attributes:
        architecture: class name, such as ``LlamaForCausalLM``.
        quantised: how the weights are already quantised (``compressed-tensors`` …), or empty.
        tied: whether input and output embedding are one table.
        ranks: the layers that are pairs of thin ones, by name, with their ranks (see ``leanmodel_api.low_rank``).
        shared: for each layer the one whose weights it has; empty where each has its own (``leanmodel_api.shared``).
        extras: what attention does beyond the plain kind, in words: scaled positions, a window.
    """

    architecture: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    positions: int
    quantised: str = ""
    ranks: tuple[tuple[str, int], ...] = ()
    shared: tuple[int, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def decoder(self) -> Family:
        """What is known of the architecture's modules."""
        return family_of(self.architecture)

    @property
    def widths(self) -> dict[str, int]:
        """How wide is what linear layers read and write."""
        heads = {"queries": self.heads * self.head_dim, "keys": self.kv_heads * self.head_dim}
        return {"hidden": self.hidden, "inner": self.intermediate, **heads}

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer, norms included; the mean where layers differ by rank."""
        return self._inside // self._stored

    @property
    def _stored(self) -> int:
        """Layers whose weights are stored."""
        return len(set(self.shared)) or self.layers

    @property
    def _inside(self) -> int:
        """Parameters of all decoder layers, those of a group once."""
        if not self.ranks:
            return self._stored * (
                sum(linear.columns * linear.rows for linear in self._layer(0)) + self._vectors
            )
        inside = sum(linear.columns * linear.rows for linear in self.linears()[:-1])
        return inside + self._vectors * self.layers

    @property
    def _vectors(self) -> int:
        """Parameters of a decoder layer's norms, and its biases where the family has them throughout."""
        biases = sum(linear.rows for linear in self._layer(0)) if self.decoder.biased else 0
        heads = self.decoder.head_norms * self.head_dim
        return len(self.decoder.norms) * self.norm_parameters + heads + biases

    @property
    def norm_parameters(self) -> int:
        """Parameters of one norm of the hidden state."""
        return self.hidden * (2 if self.decoder.biased else 1)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embedding table, or of both tables when they are not tied."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """Parameters in all (biases that only some layers have are too few to count)."""
        return self._inside + self.embedding_parameters + self.position_parameters + self.norm_parameters

    @property
    def position_parameters(self) -> int:
        """Parameters of the table of positions, where there is one."""
        return self.positions * self.hidden if self.decoder.positions else 0

    @property
    def outputs(self) -> int:
        """Logits per answer position."""
        return self.vocabulary

    def linears(self) -> list[Linear]:
        """Return every linear layer that is stored, the output head included, in the model's order."""
        stored = sorted(set(self.shared)) or range(self.layers)
        whole = [linear for index in stored for linear in self._layer(index)]
        ranks, found = dict(self.ranks), []
        for linear in whole:
            rank = ranks.get(linear.name)
            if rank is None:
                found.append(linear)
            else:
                found.append(Linear(f"{linear.name}.{INNER}", linear.columns, rank))
                found.append(Linear(f"{linear.name}.{OUTER}", rank, linear.rows))
        return [*found, Linear(HEAD, self.hidden, self.vocabulary)]

    def with_layers(self, layers: int) -> ModelShape:
        """Return the shape with another number of layers."""
        return replace(self, layers=layers)

    def _layer(self, index: int) -> list[Linear]:
        at, widths = self.decoder.layer(index), self.widths
        return [
            Linear(f"{at}.{one.name}", widths[one.reads], sum(widths[part] for part in one.writes))
            for one in self.decoder.projections
        ]


def from_config(config: Mapping[str, Any]) -> ModelShape:
    """Read a shape from a Hugging Face ``config.json``.

    Raises:
        KeyError: a size is missing, so the model is no decoder of the kind we know.
    """
    family = of_config(config)
    hidden, heads = int(config[family.key("hidden_size")]), int(config[family.key("num_attention_heads")])
    quantisation = config.get("quantization_config") or config.get("compression_config") or {}
    return ModelShape(
        architecture=str((config.get("architectures") or ["unknown"])[0]),
        layers=int(config[family.key("num_hidden_layers")]),
        hidden=hidden,
        intermediate=family.inner(config),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", family.tied)),
        positions=int(config.get(family.key("max_position_embeddings"), 0)),
        quantised=str(quantisation.get("quant_method", "unknown method")) if quantisation else "",
        ranks=tuple(sorted((str(name), int(rank)) for name, rank in (config.get(RANKS) or {}).items())),
        shared=tuple(int(source) for source in config.get(SHARED) or ()),
        extras=tuple(_extras(config)),
    )


def _extras(config: Mapping[str, Any]) -> Iterable[str]:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type") or rope.get("type") or "default"
    if scaling != "default":
        yield f"positions scaled by {scaling}"
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        yield f"a window of {config['sliding_window']} tokens"


def from_gguf(fields: Mapping[str, Any], tied: bool) -> ModelShape:
    """Read a shape from the metadata of a GGUF file (``general.architecture`` and its sizes).

    Args:
        fields: metadata by key; ``tokenizer.ggml.tokens`` may be given as its length.
        tied: whether the file lacks an output head of its own.

    Raises:
        KeyError: a size is missing.
    """
    family = str(fields["general.architecture"])
    hidden = int(fields[f"{family}.embedding_length"])
    heads = int(fields[f"{family}.attention.head_count"])
    return ModelShape(
        architecture=GGUF_ARCHITECTURES.get(family, family),
        layers=int(fields[f"{family}.block_count"]),
        hidden=hidden,
        intermediate=int(fields[f"{family}.feed_forward_length"]),
        heads=heads,
        kv_heads=int(fields.get(f"{family}.attention.head_count_kv", heads)),
        head_dim=int(fields.get(f"{family}.attention.key_length", hidden // heads)),
        vocabulary=int(fields["tokenizer.ggml.tokens"]),
        tied=tied,
        positions=int(fields.get(f"{family}.context_length", 0)),
    )


def matches(name: str, pattern: str) -> bool:
    """Say whether a layer is meant by a manifest's pattern: ``Linear``, ``re:…``, a name, or its last parts."""
    if pattern == "Linear":
        return True
    if pattern.startswith("re:"):
        return re.match(pattern[3:], name) is not None
    return name == pattern or fnmatch.fnmatchcase(name, f"*.{pattern}")


def targeted(shape: ModelShape, targets: Iterable[str], ignore: Iterable[str]) -> list[Linear]:
    """Return the linear layers that a quantise step would change."""
    wanted, left = list(targets), list(ignore)
    return [
        linear
        for linear in shape.linears()
        if any(matches(linear.name, pattern) for pattern in wanted)
        and not any(matches(linear.name, pattern) for pattern in left)
    ]


def groups_that_fit(linears: Iterable[Linear], sizes: Iterable[int] = (128, 64, 32)) -> list[int]:
    """Return the group sizes that divide the input width of every layer, the largest first."""
    widths = {linear.columns for linear in linears}
    return [size for size in sizes if all(width % size == 0 for width in widths)]


def forward_flops(shape: ModelShape, tokens: float, answers: float, layers: int | None = None) -> float:
    """Return the floating-point operations of a forward pass.

    Args:
        shape: the model.
        tokens: tokens that go through the layers, padding included.
        answers: positions at which the output head is computed.
        layers: how many layers they go through. Default: all.
    """
    count = shape.layers if layers is None else layers
    return 2.0 * shape.layer_parameters * count * tokens + 2.0 * shape.hidden * shape.outputs * answers
