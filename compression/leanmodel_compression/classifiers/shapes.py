"""What an encoder's configuration says: its family, its labels, its sizes. No weights are read.

Families: BERT (MiniLM and TinyBERT are its small sizes), DistilBERT (arXiv 1910.01108), ALBERT (1909.11942),
MobileBERT (2004.02984), SqueezeBERT (2006.11316).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..shapes import Linear, ModelShape, from_config

FAMILIES = {
    "bert": "Bert",
    "distilbert": "DistilBert",
    "albert": "Albert",
    "mobilebert": "MobileBert",
    "squeezebert": "SqueezeBert",
}
"""``model_type`` of a configuration -> what transformers' class names of the family begin with."""

FEEDS = {
    "bert": ("intermediate.dense", "output.dense"),
    "distilbert": ("ffn.lin1", "ffn.lin2"),
    "albert": ("ffn", "ffn_output"),
    "mobilebert": ("intermediate.dense", "output.dense"),
}
"""The layers of an MLP that write its neurons and read them, by family; SqueezeBERT's are convolutions in groups."""

HEAD = "ForSequenceClassification"
LINEAR = "linear-tfidf"
"""``model_type`` of a linear model of ours (:mod:`.linear`): no encoder, but it classifies and is served alike."""


@dataclass(frozen=True)
class EncoderShape(ModelShape):
    """Sizes of an encoder; every count is in elements.

    Attributes:
        family: key of FAMILIES.
        labels: of its classification head, in the order of its outputs; empty without a head.
        layer_weights: parameters of one layer.
        embedding_weights: parameters of the embeddings, positions and types included.
        head_weights: parameters of pooler and head.
        stored_layers: layers whose weights are stored; fewer than ``layers`` where layers share them (ALBERT).
        attention_width: of queries, keys and values; 0 means ``hidden``.
        table_width: of a token's row in the token table.
        neuron_weights: parameters of a layer that go with one of its neurons.
        pooling: mean or cls of a sentence encoder; empty where it is none.
        normalize: whether its vectors are scaled to length 1.
        problem: why its pooling cannot be used; empty where it can.
    """

    family: str = ""
    labels: tuple[str, ...] = ()
    layer_weights: int = 0
    embedding_weights: int = 0
    head_weights: int = 0
    stored_layers: int | None = None
    attention_width: int = 0
    table_width: int = 0
    neuron_weights: int = 0
    pooling: str = ""
    normalize: bool = False
    problem: str = ""

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer."""
        return self.layer_weights

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embeddings."""
        return self.embedding_weights

    @property
    def parameters(self) -> int:
        """Parameters in all."""
        layers = self.layers if self.stored_layers is None else self.stored_layers
        return layers * self.layer_weights + self.embedding_weights + self.head_weights

    @property
    def relations(self) -> int:
        """Width of queries, keys and values."""
        return self.attention_width or self.hidden

    @property
    def outputs(self) -> int:
        """Logits per text."""
        return max(1, len(self.labels))

    def linears(self) -> list[Linear]:
        """No step asks for an encoder's linear layers by name."""
        return []

    def with_vocabulary(self, tokens: int) -> EncoderShape:
        """Return the shape with another number of tokens."""
        tables = self.embedding_weights + self.table_width * (tokens - self.vocabulary)
        return replace(self, vocabulary=tokens, embedding_weights=tables)

    def with_neurons(self, count: int) -> EncoderShape:
        """Return the shape with another number of neurons in every layer."""
        weights = self.layer_weights + self.neuron_weights * (count - self.intermediate)
        return replace(self, intermediate=count, layer_weights=weights)

    def resized(self, layers: int, hidden: int, inner: int, heads: int) -> EncoderShape:
        """Return a BERT, DistilBERT or ALBERT of other sizes, with the same tokens, positions and labels."""
        narrow = self.table_width if self.family == "albert" else hidden
        rows = self.embedding_weights - (self.table_width * self.hidden if self.family == "albert" else 0)
        tables = rows // self.table_width * narrow + (narrow * hidden if self.family == "albert" else 0)
        return replace(
            self, layers=layers, hidden=hidden, intermediate=inner, heads=heads, kv_heads=heads, head_dim=hidden // heads,
            layer_weights=_layer({}, self.family, hidden, inner), embedding_weights=tables, table_width=narrow,
            head_weights=hidden * hidden + hidden * len(self.labels), neuron_weights=2 * hidden + 1,
        )  # fmt: skip

    def with_labels(self, labels: tuple[str, ...]) -> EncoderShape:
        """Return the shape with a head for these labels."""
        head = self.head_weights + self.hidden * (len(labels) - len(self.labels))
        return replace(
            self, labels=labels, architecture=FAMILIES[self.family] + HEAD, head_weights=max(head, 0)
        )


def any_shape(config: Mapping[str, Any]) -> ModelShape:
    """Read the shape of an encoder or a decoder from its ``config.json``.

    Raises:
        KeyError: a size is missing.
    """
    known = (*FAMILIES, LINEAR)
    return encoder_shape(config) if config.get("model_type") in known else from_config(config)


def encoder_shape(config: Mapping[str, Any]) -> EncoderShape:
    """Read an encoder's shape.

    Raises:
        KeyError: a size is missing, or the family is another.
    """
    family = str(config["model_type"])
    if family == LINEAR:
        from .linear import shape

        words, positions = int(config["vocab_size"]), int(config["max_position_embeddings"])
        return shape(int(config["features"]), words, _labels(config), positions)
    prefix = FAMILIES[family]
    architecture = str((config.get("architectures") or [f"{prefix}Model"])[0])
    distil = family == "distilbert"
    layers = int(config["n_layers" if distil else "num_hidden_layers"])
    hidden = int(config["dim" if distil else "hidden_size"])
    inner = int(config["hidden_dim" if distil else "intermediate_size"])
    heads = int(config["n_heads" if distil else "num_attention_heads"])
    vocabulary, positions = int(config["vocab_size"]), int(config.get("max_position_embeddings", 512))
    labels = _labels(config) if architecture.endswith(HEAD) else ()
    types = 0 if distil else int(config.get("type_vocab_size", 2))
    tables, layer = (vocabulary + positions + types) * hidden, _layer(config, family, hidden, inner)
    narrow = int(config.get("embedding_size", 128)) if family in ("albert", "mobilebert") else hidden
    if family == "albert":
        tables = (vocabulary + positions + types) * narrow + narrow * hidden
    elif family == "mobilebert":
        tables = vocabulary * narrow + (positions + types) * hidden + 3 * narrow * hidden
    # MobileBERT's published head reads the first token as it is; DistilBERT's dense layer comes with the head.
    pooling = config.get("leanmodel_pooling") or {}
    plain = family == "mobilebert" and not config.get("classifier_activation", True)
    pooled = 0 if plain else hidden * hidden
    return EncoderShape(
        architecture=architecture, layers=layers, hidden=hidden, intermediate=inner, heads=heads, kv_heads=heads,
        head_dim=hidden // heads, vocabulary=vocabulary, tied=False, positions=positions,
        quantised=_quantised(config), family=family, labels=labels, layer_weights=layer, embedding_weights=tables,
        head_weights=pooled + hidden * len(labels),
        stored_layers=int(config.get("num_hidden_groups", 1)) if family == "albert" else None,
        attention_width=int(config.get("intra_bottleneck_size", 128)) if _narrow(config) else 0, table_width=narrow,
        neuron_weights=_layer(config, family, hidden, inner + 1) - layer if family in FEEDS else 0,
        pooling=str(pooling.get("mode", "")), normalize=bool(pooling.get("normalize")),
        problem=str(pooling.get("problem", "")),
    )  # fmt: skip


def _narrow(config: Mapping[str, Any]) -> bool:
    """Say whether attention works on MobileBERT's bottleneck."""
    return config.get("model_type") == "mobilebert" and bool(config.get("use_bottleneck", True))


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels in the order of the outputs; transformers numbers two of them where none are named."""
    named = config.get("id2label") or {str(index): f"LABEL_{index}" for index in range(2)}
    return tuple(str(named[key]) for key in sorted(named, key=int))


def _quantised(config: Mapping[str, Any]) -> str:
    found = config.get("quantization_config") or config.get("compression_config") or {}
    return str(found.get("quant_method", "unknown method")) if found else ""


def _layer(config: Mapping[str, Any], family: str, hidden: int, inner: int) -> int:
    """Return the parameters of one layer; biases and norms are counted where they are not lost in the rest."""
    if family == "mobilebert":
        narrow = int(config.get("intra_bottleneck_size", 128))
        networks = int(config.get("num_feedforward_networks", 4))
        bottlenecks = 2 * hidden * narrow + hidden * narrow  # two in, one out
        attention = 3 * narrow * narrow + hidden * narrow
        feeds = networks * (2 * narrow * inner + inner + 3 * narrow)
        return bottlenecks + attention + feeds + 12 * narrow + 3 * hidden
    if family == "squeezebert":
        groups = [int(config.get(f"{name}_groups", 4)) for name in ("q", "k", "v")]
        after = int(config.get("post_attention_groups", 1))
        wide, back = int(config.get("intermediate_groups", 4)), int(config.get("output_groups", 4))
        attention = sum(hidden * hidden // group for group in (*groups, after))
        return attention + hidden * inner // wide + hidden * inner // back + 9 * hidden + inner
    return 4 * hidden * hidden + 2 * hidden * inner + 9 * hidden + inner
