"""Weights in 8 bits inside vLLM: a token table, looked up and multiplied with where it is the head, too; W8A16 on a CPU.

vLLM's own reader of such tables (``CompressedTensorsEmbeddingWNA16Int``) looks up by a Triton kernel, so on a GPU alone,
and leaves no head to be tied to them; its kernel for weights alone knows 4 bits on a CPU. Imported by every process
that has such a model, as its configuration is of a class from here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from vllm.model_executor.kernels.linear import register_linear_kernel
from vllm.model_executor.kernels.linear.mixed_precision.MPLinearKernel import (
    MPLinearKernel,
    MPLinearLayerConfig,
)
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
from vllm.platforms.interface import PlatformEnum
from vllm.scalar_type import scalar_types

from leanmodel_api.eight_bits import TABLE_GROUP

ROWS = 2048
"""Rows of a weight that are expanded at once: in bfloat16 they stay in a core's cache until they are multiplied."""
BLOCK = 32
"""torch's kernel for 8-bit weights reads so many columns at once, and past the end of a row with a remainder."""
FEW = 16
"""With more states than these, expanding the weights and multiplying floats is as fast as that kernel or faster."""


def multiply(states: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return states (n × columns) times a weight (rows × columns, integers; a scale for each row): n × rows."""
    if fast(states):
        return torch._weight_int8pack_mm(states.contiguous(), weight, scale)
    made = states.new_empty(states.shape[0], weight.shape[0])
    for begin in range(0, weight.shape[0], ROWS):
        part = weight[begin : begin + ROWS].to(states.dtype)
        made[:, begin : begin + ROWS] = functional.linear(states, part)
    return made.mul_(scale)


def fast(states: torch.Tensor) -> bool:
    """Say whether torch's kernel for weights in 8 bits is the fastest way: in bfloat16 on a CPU, for few states."""
    few = states.shape[0] <= FEW and states.shape[1] % BLOCK == 0
    return bool(few and states.device.type == "cpu" and states.dtype == torch.bfloat16)


# Where a model is compiled it is one operation, as the way that is taken depends on how many states there are.
opaque = torch.library.custom_op("leanmodel::eight_bits", multiply, mutates_args=())


@opaque.register_fake  # type: ignore[untyped-decorator]
def _(states: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return states.new_empty(states.shape[0], weight.shape[0])


def product(
    states: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return what a linear layer with integers answers: states … × columns to … × rows."""
    way = opaque if torch.compiler.is_compiling() else multiply
    made = way(states.reshape(-1, states.shape[-1]), weight, scale.reshape(-1).to(states.dtype))
    made = made.reshape(*states.shape[:-1], weight.shape[0])
    return made if bias is None else made + bias


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
        rows = sum(output_partition_sizes)
        numbers = torch.empty(rows, input_size_per_partition, dtype=torch.int8)
        scale = torch.empty(rows, 1, dtype=params_dtype)
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
        return product(states, layer.weight, layer.weight_scale, bias)


class Head(UnquantizedEmbeddingMethod):  # type: ignore[misc]  # as above
    """A head that has weights of its own, or is the table itself."""

    def tie_weights(self, layer: Any, embed_tokens: Any) -> Any:
        """Return the table's own layer: it multiplies with its integers."""
        return embed_tokens


class EightBitsKernel(MPLinearKernel):  # type: ignore[misc]  # as above
    """Linear layers with integers of 8 bits and one scale for each row, on a CPU."""

    @classmethod
    def get_min_capability(cls) -> int:
        """Return that no GPU is asked for."""
        return -1

    @classmethod
    def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
        """Say whether a layer is one of ours, and why not."""
        if c.weight_type != scalar_types.uint8b128 or c.group_size != -1:
            return False, "it is for 8 bits with one scale for each row"
        return not (c.zero_points or c.has_g_idx), "it knows neither zero points nor an order of columns"

    def process_weights_after_loading(self, layer: Any) -> None:
        """Unpack the integers: four in a word, the lowest first, each with 128 added."""
        packed, scale = (getattr(layer, name).data for name in (self.w_q_name, self.w_s_name))
        numbers = (packed.contiguous().view(torch.uint8).to(torch.int16) - 128).to(torch.int8)
        for name, tensor in ((self.w_q_name, numbers), (self.w_s_name, scale)):
            layer.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))

    def apply_weights(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return the layer's answer (… × rows) to states (… × columns)."""
        return product(x, getattr(layer, self.w_q_name), getattr(layer, self.w_s_name), bias)


class EightBitsConfig(CompressedTensorsConfig):  # type: ignore[misc]  # as above
    """What compressed-tensors says of a model, and of its token table where that has integers."""

    table = False

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Read the configuration without the table's group, which vLLM would hold to what linear layers need."""
        groups = {name: group for name, group in config["config_groups"].items() if name != TABLE_GROUP}
        found = super().from_config({**config, "config_groups": groups})
        found.table = TABLE_GROUP in config["config_groups"]
        return found

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """Return the table's method for the table, and vLLM's for all else."""
        known = super().get_quant_method
        if not self.table:
            return known(layer, prefix)
        if isinstance(layer, ParallelLMHead):
            return known(layer, prefix) or Head()
        return TokenTable() if isinstance(layer, VocabParallelEmbedding) else known(layer, prefix)


register_linear_kernel(EightBitsKernel, PlatformEnum.CPU, "mp")
