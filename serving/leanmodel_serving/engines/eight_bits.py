"""vLLM's plugin for weights in 8 bits whose activations are not rounded: loaded by vLLM in each of its processes.

Two things of ``Quantize`` need it: a token table in 8 bits (``embeddings``), and on a CPU the scheme W8A16, for which vLLM
has no kernel there. Entered in pyproject.toml under ``vllm.general_plugins``. It is a quantisation method of vLLM's custom
ones, taken where a model's configuration has either; everything else of the model is then read as compressed-tensors.
"""

from __future__ import annotations

from typing import Any

from leanmodel_api.eight_bits import BITS, table_of, weights_alone

METHOD = "leanmodel-eight-bits"


def register() -> None:
    """Make vLLM know the method; may be called again."""
    from vllm.model_executor.layers.quantization import register_quantization_config

    register_quantization_config(METHOD)(method())


def method() -> Any:
    """Return the class that vLLM asks for configurations.

    What computes is imported when a model wants it, not before: that takes seconds in each process.
    """
    from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

    class EightBits(QuantizationConfig):  # type: ignore[misc]  # Any where mypy runs
        """Never made: ``from_config`` returns a configuration of compressed-tensors."""

        @classmethod
        def override_quantization_method(
            cls, hf_quant_cfg: dict[str, Any], user_quant: str | None, hf_config: Any = None
        ) -> str | None:
            ours = hf_quant_cfg.get("quant_method") == "compressed-tensors" and (
                table_of(hf_quant_cfg) or weights_alone(hf_quant_cfg, BITS)
            )
            return METHOD if ours and user_quant in (None, METHOD) else None

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            from .eight_bits_method import EightBitsConfig

            return EightBitsConfig.from_config(config)

        @classmethod
        def get_min_capability(cls) -> int:
            return 70

        @staticmethod
        def get_config_filenames() -> list[str]:
            return []

        def get_name(self) -> str:
            return METHOD

        def get_supported_act_dtypes(self) -> list[Any]:
            raise TypeError(self.__doc__)

        def get_quant_method(self, layer: Any, prefix: str) -> Any:
            raise TypeError(self.__doc__)

    return EightBits
