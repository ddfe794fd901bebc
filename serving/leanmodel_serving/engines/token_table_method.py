"""A token table in 8 bits inside vLLM: looked up, and multiplied with where it is the head, too.

vLLM's own reader of such tables (``CompressedTensorsEmbeddingWNA16Int``) looks up by a Triton kernel, so on a GPU alone,
and leaves no head to be tied to them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import (
    CompressedTensorsConfig,
)
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)
from vllm.model_executor.utils import set_weight_attrs

from leanmodel_api.token_table import GROUP

ROWS = 8192
"""Rows that are expanded at once where no kernel multiplies with integers."""
BLOCK = 32
"""torch's kernel for 8-bit weights reads so many columns at once, and past the end of a row with a remainder."""


class TokenTable(QuantizeMethodBase):  # type: ignore[misc]  # Any where mypy runs
    """Integers (tokens × width) and a scale for each row."""

    def create_weights(
        self,
        layer: Any,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **more: Any,
    ) -> None:
        """Give the layer room for what is stored; vLLM fills rows beyond the vocabulary with zeros."""
        rows, columns = sum(output_partition_sizes), input_size_per_partition
        numbers, scale = (
            torch.empty(rows, columns, dtype=torch.int8),
            torch.empty(rows, 1, dtype=params_dtype),
        )
        for name, tensor in (("weight", numbers), ("weight_scale", scale)):
            parameter = torch.nn.Parameter(tensor, requires_grad=False)
            set_weight_attrs(parameter, {"input_dim": 1, "output_dim": 0, **more})
            layer.register_parameter(name, parameter)

    def embedding(self, layer: Any, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of tokens (…) as floats (… × width)."""
        scale = functional.embedding(ids, layer.weight_scale)
        return functional.embedding(ids, layer.weight).to(scale.dtype) * scale

    def apply(self, layer: Any, states: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores of all tokens (… × tokens) for states (… × width)."""
        scale, flat = layer.weight_scale.squeeze(1).to(states.dtype), states.reshape(-1, states.shape[-1])
        if fast(flat):
            found = torch._weight_int8pack_mm(flat.contiguous(), layer.weight, scale)
        else:
            parts = layer.weight.split(ROWS)
            found = torch.cat([functional.linear(flat, part.to(flat.dtype)) for part in parts], -1) * scale
        found = found.reshape(*states.shape[:-1], -1)
        return found if bias is None else found + bias


def fast(states: torch.Tensor) -> bool:
    """Say whether torch's kernel for weights in 8 bits can be used: on a CPU, where rows are whole blocks."""
    return bool(states.device.type == "cpu" and states.shape[-1] % BLOCK == 0)


class Head(UnquantizedEmbeddingMethod):  # type: ignore[misc]  # Any where mypy runs
    """A head that has weights of its own, or is the table itself."""

    def tie_weights(self, layer: Any, embed_tokens: Any) -> Any:
        """Return the table's own layer: it multiplies with its integers."""
        return embed_tokens


class TokenTableConfig(CompressedTensorsConfig):  # type: ignore[misc]  # as above
    """What compressed-tensors says of a model, with its token table in 8 bits."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Read the configuration without the table's group, which vLLM would hold to what linear layers need."""
        groups = {name: group for name, group in config["config_groups"].items() if name != GROUP}
        return super().from_config({**config, "config_groups": groups})

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """Return the table's method for the table, and vLLM's for all else."""
        if isinstance(layer, ParallelLMHead):
            return super().get_quant_method(layer, prefix) or Head()
        return (
            TokenTable()
            if isinstance(layer, VocabParallelEmbedding)
            else super().get_quant_method(layer, prefix)
        )
