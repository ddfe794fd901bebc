"""What steps must know of a decoder's architecture: the names of its modules, and what cannot be done with it.

Steps ask here and have no names of their own, so that a family is one entry. Widths are given by name (``hidden``,
``queries``, ``keys``, ``inner``): a shape knows how wide each is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HEAD = "lm_head"
"""The output head, in every family."""


@dataclass(frozen=True)
class Projection:
    """A linear layer of a decoder layer.

    Attributes:
        name: within the decoder layer, such as ``mlp.down_proj``.
        reads: what its columns are.
        writes: what its rows are, one after the other: a fused layer has several parts.
    """

    name: str
    reads: str
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """Why a family does not have a step, and what to write instead."""

    why: str
    instead: str


@dataclass(frozen=True)
class Family:
    """An architecture of decoders.

    Attributes:
        name: as people say it.
        architecture: transformers' class of its causal language models.
        projections: the linear layers of a decoder layer, in the model's order.
        layers: the list of decoder layers, by its name in the model.
        table: the token table.
        positions: the table of positions, empty where there is none.
        norm: the last norm.
        norms: the norms of the hidden state within a decoder layer.
        head_norms: norms as wide as a head within a decoder layer.
        biased: whether norms and linear layers have biases that are worth counting.
        transposed: whether linear layers are stored columns × rows (Conv1D), and not rows × columns.
        tied: whether one table serves both ends where a configuration does not say.
        keys: what the configuration calls a size, where it is not the usual name.
        widening: inner width by hidden width where a configuration does not say; 0 where it must.
        grouped: whether keys and values may have fewer heads than queries.
        dividing_heads: whether transformers refuses heads that do not divide the hidden width.
        gguf: llama.cpp's name, empty where files of it are not written.
        refusals: what cannot be done, by (type, member of the step, its value).
    """

    name: str
    architecture: str
    projections: tuple[Projection, ...]
    layers: str = "model.layers"
    table: str = "model.embed_tokens"
    positions: str = ""
    norm: str = "model.norm"
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    head_norms: int = 0
    biased: bool = False
    transposed: bool = False
    tied: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    widening: int = 0
    grouped: bool = True
    dividing_heads: bool = False
    gguf: str = ""
    refusals: Mapping[tuple[str, str, str], Refusal] = field(default_factory=dict)

    def key(self, name: str) -> str:
        """Return what the configuration calls a size."""
        return self.keys.get(name, name)

    def inner(self, config: Mapping[str, Any]) -> int:
        """Return the inner width of the MLP.

        Raises:
            KeyError: the configuration does not say, and the family has no rule.
        """
        name = self.key("intermediate_size")
        if self.widening and not config.get(name):
            return self.widening * int(config[self.key("hidden_size")])
        return int(config[name])

    def layer(self, index: int) -> str:
        """Return a decoder layer's name in the model."""
        return f"{self.layers}.{index}"

    def reading(self, width: str) -> Projection:
        """Return the one projection whose columns are a width."""
        return next(one for one in self.projections if one.reads == width)

    def turned(self, parameter: str) -> bool:
        """Say whether a parameter is stored columns × rows."""
        ends = tuple(f".{one.name}.weight" for one in self.projections)
        return self.transposed and parameter.endswith(ends)

    def refusal(self, spec: Any) -> tuple[str, Refusal] | None:
        """Return the member of a step that the family does not have, with the reason; None where it has the step."""
        for (kind, member, value), refusal in self.refusals.items():
            if getattr(spec, "type", "") == kind and getattr(spec, member, None) == value:
                return member, refusal
        return None


SEPARATE = (
    Projection("self_attn.q_proj", "hidden", ("queries",)),
    Projection("self_attn.k_proj", "hidden", ("keys",)),
    Projection("self_attn.v_proj", "hidden", ("keys",)),
    Projection("self_attn.o_proj", "queries", ("hidden",)),
    Projection("mlp.gate_proj", "hidden", ("inner",)),
    Projection("mlp.up_proj", "hidden", ("inner",)),
    Projection("mlp.down_proj", "inner", ("hidden",)),
)
"""Llama's layers, which many families have."""

LLAMA = Family("Llama", "LlamaForCausalLM", SEPARATE, dividing_heads=True, gguf="llama")
MISTRAL = Family("Mistral", "MistralForCausalLM", SEPARATE, gguf="llama")
FIXED_HEADS = Refusal("vLLM takes hidden / heads for the width of a head", "write Neurons or Depth")
QWEN2 = Family(
    "Qwen2",
    "Qwen2ForCausalLM",
    SEPARATE,
    gguf="qwen2",
    refusals={("Prune", "method", "Heads"): FIXED_HEADS, ("Prune", "method", "Width"): FIXED_HEADS},
)
QWEN3 = Family("Qwen3", "Qwen3ForCausalLM", SEPARATE, head_norms=2, gguf="qwen3")
GEMMA3 = Family(
    "Gemma 3",
    "Gemma3ForCausalLM",
    SEPARATE,
    norms=(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    head_norms=2,
    tied=True,
    dividing_heads=True,
    refusals={
        ("Prune", "method", "Width"): Refusal(
            "its norms add one to their weights, and its token table is scaled by the root of the hidden width",
            "write Neurons, Heads or Depth",
        ),
        ("Factorize", "type", "Factorize"): Refusal(
            "there is no low-rank class of it", "write {type: Prune, method: Neurons}"
        ),
        ("Share", "type", "Share"): Refusal(
            "its layers are of two kinds, with a window and without", "write {type: Prune, method: Depth}"
        ),
        ("Quantize", "algorithm", "SmoothQuant"): Refusal(
            "llm-compressor would scale the norm after attention for the one before the MLP",
            "write algorithm: GPTQ or RTN",
        ),
        ("Quantize", "algorithm", "AWQ"): Refusal(
            "what llm-compressor puts in the place of its norms is lost when a killed run goes on",
            "write algorithm: GPTQ or RTN",
        ),
        ("Export", "format", "GGUF"): Refusal(
            "its tokenizer is SentencePiece's, which is not written to GGUF yet",
            "remove the step, or convert the safetensors with llama.cpp's own converter",
        ),
    },
)
GPT2 = Family(
    "GPT-2",
    "GPT2LMHeadModel",
    (
        Projection("attn.c_attn", "hidden", ("queries", "keys", "keys")),
        Projection("attn.c_proj", "queries", ("hidden",)),
        Projection("mlp.c_fc", "hidden", ("inner",)),
        Projection("mlp.c_proj", "inner", ("hidden",)),
    ),
    layers="transformer.h",
    table="transformer.wte",
    positions="transformer.wpe",
    norm="transformer.ln_f",
    norms=("ln_1", "ln_2"),
    biased=True,
    transposed=True,
    tied=True,
    keys={
        "hidden_size": "n_embd",
        "intermediate_size": "n_inner",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    },
    widening=4,
    grouped=False,
    gguf="gpt2",
    refusals={
        ("Prune", "method", "Heads"): Refusal(
            "vLLM and transformers take hidden / heads for the width of a head", "write Neurons or Depth"
        ),
        ("Prune", "method", "Width"): Refusal(
            "its norms take the mean of all channels away, and positions have a table of their own",
            "write Neurons or Depth",
        ),
        ("Factorize", "type", "Factorize"): Refusal(
            "there is no low-rank class of it", "write {type: Prune, method: Neurons}"
        ),
        ("Share", "type", "Share"): Refusal(
            "there is no shared class of it", "write {type: Prune, method: Depth}"
        ),
        ("Quantize", "type", "Quantize"): Refusal(
            "its layers are Conv1D, stored columns first, and neither vLLM nor transformers reads integers for them",
            "remove the step, or write {type: Export, format: GGUF, precision: Int8} for llama.cpp",
        ),
    },
)
PHI3 = Family(
    "Phi-3",
    "Phi3ForCausalLM",
    (
        Projection("self_attn.qkv_proj", "hidden", ("queries", "keys", "keys")),
        Projection("self_attn.o_proj", "queries", ("hidden",)),
        Projection("mlp.gate_up_proj", "hidden", ("inner", "inner")),
        Projection("mlp.down_proj", "inner", ("hidden",)),
    ),
    refusals={
        ("Prune", "method", "Heads"): Refusal(
            "its queries, keys and values are one layer, which it cuts by its configuration and not by their widths",
            "write Neurons or Depth",
        ),
        ("Factorize", "type", "Factorize"): Refusal(
            "there is no low-rank class of it", "write {type: Prune, method: Neurons}"
        ),
        ("Share", "type", "Share"): Refusal(
            "there is no shared class of it", "write {type: Prune, method: Depth}"
        ),
        ("Export", "format", "GGUF"): Refusal(
            "its tokenizers are not written to GGUF yet",
            "remove the step, or convert the safetensors with llama.cpp's own converter",
        ),
    },
)

FAMILIES: dict[str, Family] = {
    one.architecture: one for one in (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA3, GPT2, PHI3)
}
"""The families whose tiny copies go through their steps in tests/compression, by architecture."""
OWN_PREFIXES = ("LowRank", "Shared")
"""What our own classes' names begin with; the rest is the architecture that they were made of."""


def family_of(architecture: str) -> Family:
    """Return the family of an architecture; one that is not known is taken for the plainest, and refused elsewhere."""
    for prefix in OWN_PREFIXES:
        architecture = architecture.removeprefix(prefix)
    return FAMILIES.get(architecture, LLAMA)


def of_model(model: Any) -> Family:
    """Return the family of a loaded model."""
    return family_of(type(model).__name__)


def of_config(config: Mapping[str, Any]) -> Family:
    """Return the family of a configuration."""
    return family_of(str((config.get("architectures") or [""])[0]))
