"""What a replica on a processor takes of memory beside its weights. Pure; the constants are measured.

Measured is anonymous memory, of the replica and the processes that it starts, at its peak: from its start until it has
answered 64 requests of full length at once, twice as many with ONNX Runtime (``make bench-served-memory``). Where a figure differs from model to
model the constants give more than each: docs/search.md has the table.
"""

from __future__ import annotations

from typing import Literal

from .batching import BATCH_TOKENS, MAX_SEQUENCES

Engine = Literal["vLLM", "ONNXRuntime"]

ENGINE_BYTES: dict[Engine, int] = {"vLLM": 1_660_000_000, "ONNXRuntime": 135_000_000}
"""The engine without a model: Python, its libraries, and with vLLM a second process that has them too."""
VLLM_HELD = 1.28
"""What vLLM holds by what weights take in its precision: a start leaves some of the copies that packing makes."""
HELD = {"Float32": 1.2, "Int8": 1.75}
"""What ONNX Runtime holds by what a file weighs: it packs matrices anew, and reads the file before it drops it."""
FLOAT = 4
VLLM_TOKENS = 2048
"""Tokens of prompts that vLLM's server computes at once on a CPU."""


def engine_bytes(engine: Engine) -> int:
    """Return what an engine takes before it has a model."""
    return ENGINE_BYTES[engine]


def vllm_work(hidden: int, intermediate: int, vocabulary: int) -> int:
    """Return what vLLM computes with, in bytes: a batch of prompts' tokens, and the logits of answers under way.

    Args:
        hidden: width of a state.
        intermediate: neurons of a layer.
        vocabulary: tokens in the table.
    """
    states = VLLM_TOKENS * (8 * hidden + 8 * intermediate)
    return FLOAT * (states + 6 * MAX_SEQUENCES * vocabulary)


def onnx_work(hidden: int, intermediate: int, heads: int, length: int) -> int:
    """Return what ONNX Runtime computes an encoder's largest batch with, in bytes.

    Its memory grows by doubling, so it has up to twice of what is in use: three tables of attention's scores, and a
    layer's states and neurons.

    Args:
        hidden: width of a state.
        intermediate: neurons of a layer.
        heads: of attention.
        length: tokens of a text at most.
    """
    tokens = max(length, min(BATCH_TOKENS, MAX_SEQUENCES * length))
    return 2 * FLOAT * tokens * (3 * heads * length + hidden + intermediate)


def linear_work(features: int) -> int:
    """Return what ONNX Runtime computes a linear model's largest batch with, in bytes: rows of features, counted, weighed, scaled."""
    return 2 * FLOAT * MAX_SEQUENCES * 4 * features
