"""Low-rank decoders in vLLM: its own classes with two thin layers where the configuration says so.

vLLM keeps queries, keys and values in one matrix, and gate and up in another. Thin layers of different ranks cannot
be one, so these become several layers whose outputs are put side by side; all else of the model stays vLLM's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from vllm.distributed import get_pp_group, get_tensor_model_parallel_world_size
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.model_loader.weight_utils import default_weight_loader
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from leanmodel_api.low_rank import INNER, OUTER, RANKS

FUSED = {
    "self_attn.qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "mlp.gate_up_proj": ("gate_proj", "up_proj"),
}
"""Layers of vLLM that hold several of the model's."""
SINGLE = ("self_attn.o_proj", "mlp.down_proj")


class Thin(nn.Module):  # type: ignore[misc]  # torch is Any to mypy
    """Two thin layers, called and answering as a linear layer of vLLM."""

    def __init__(self, columns: int, rank: int, rows: int, bias: bool, prefix: str) -> None:
        """Make both without weights.

        Args:
            columns: width of the input.
            rank: width between the two.
            rows: width of the output.
            bias: whether the second has one.
            prefix: the layer's name in the model.
        """
        super().__init__()
        self.add_module(INNER, ReplicatedLinear(columns, rank, bias=False, prefix=f"{prefix}.{INNER}"))
        self.add_module(OUTER, ReplicatedLinear(rank, rows, bias=bias, prefix=f"{prefix}.{OUTER}"))

    def forward(self, given: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the output, and that no bias is left to add."""
        between, _ = self.get_submodule(INNER)(given)
        output, _ = self.get_submodule(OUTER)(between)
        return output, None


class SideBySide(nn.Module):  # type: ignore[misc]  # as above
    """Several layers on one input, called and answering as vLLM's one layer for them."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        """Take the layers by name, in the order of their outputs."""
        super().__init__()
        self.parts = tuple(parts)
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, given: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the outputs as one, and that no bias is left to add."""
        return torch.cat([self.get_submodule(name)(given)[0] for name in self.parts], dim=-1), None


def thin_out(model: Any, config: Any) -> None:
    """Put thin layers into a model of vLLM's that has no weights yet.

    Raises:
        ValueError: the model is spread over several devices, which thin layers are not yet.
    """
    if get_tensor_model_parallel_world_size() > 1 or get_pp_group().world_size > 1:
        raise ValueError("a low-rank model runs on one device: write tensor and pipeline parallel sizes of 1")
    ranks = getattr(config, RANKS) or {}
    heads, keys = config.num_attention_heads, config.num_key_value_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    rows = {
        "q_proj": heads * head, "k_proj": keys * head, "v_proj": keys * head,
        "gate_proj": config.intermediate_size, "up_proj": config.intermediate_size,
    }  # fmt: skip
    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}"
        for place, names in FUSED.items():
            parent, _, child = place.rpartition(".")
            bias = layer.get_submodule(place).bias is not None
            parts = {
                name: one(config.hidden_size, ranks, rows[name], bias, f"{prefix}.{parent}.{name}")
                for name in names
            }
            setattr(layer.get_submodule(parent), child, SideBySide(parts))
        for place in SINGLE:
            whole = layer.get_submodule(place)
            parent, _, child = place.rpartition(".")
            made = one(
                whole.input_size, ranks, whole.output_size, whole.bias is not None, f"{prefix}.{place}"
            )
            setattr(layer.get_submodule(parent), child, made)


def one(columns: int, ranks: Mapping[str, int], rows: int, bias: bool, name: str) -> nn.Module:
    """Return the layer of that name: two thin ones where it has a rank, else a plain one."""
    if name in ranks:
        return Thin(columns, ranks[name], rows, bias, name)
    return ReplicatedLinear(columns, rows, bias=bias, prefix=name)


def place_of(name: str) -> str:
    """Return where a stored tensor belongs: below the layer that stands for vLLM's fused one."""
    for place, names in FUSED.items():
        parent, _, child = place.rpartition(".")
        for part in names:
            name = name.replace(f".{parent}.{part}.", f".{parent}.{child}.{part}.")
    return name


class LowRank:
    """What the low-rank classes add to vLLM's."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """Build vLLM's model and put thin layers into it before anything is loaded.

        The whole matrices that this replaces are allocated for a moment, never filled.
        """
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        thin_out(self.model, vllm_config.model_config.hf_config)  # type: ignore[attr-defined]

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Fill the model and return the names of what was filled; vLLM holds them against all there is."""
        parameters = dict(self.named_parameters())  # type: ignore[attr-defined]
        tied = self.config.tie_word_embeddings  # type: ignore[attr-defined]
        loaded = set()
        for stored, tensor in weights:
            if tied and stored.startswith("lm_head."):
                continue
            parameter = parameters[place_of(stored)]
            getattr(parameter, "weight_loader", default_weight_loader)(parameter, tensor)
            loaded.add(place_of(stored))
        return loaded


class LowRankLlamaForCausalLM(LowRank, LlamaForCausalLM):  # type: ignore[misc]
    """Llama with thin layers."""


class LowRankMistralForCausalLM(LowRank, MistralForCausalLM):  # type: ignore[misc]
    """Mistral with thin layers."""


class LowRankQwen2ForCausalLM(LowRank, Qwen2ForCausalLM):  # type: ignore[misc]
    """Qwen2 with thin layers."""


class LowRankQwen3ForCausalLM(LowRank, Qwen3ForCausalLM):  # type: ignore[misc]
    """Qwen3 with thin layers."""
