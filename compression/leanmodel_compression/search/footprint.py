"""What a replica of a candidate would take of memory on a machine without GPU, before the candidate is made. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leanmodel_api.base import quantity
from leanmodel_api.footprint import ENGINE_BYTES, FLOAT, HELD, VLLM_HELD, linear_work, onnx_work, vllm_work
from leanmodel_api.plan import CompressPlan
from leanmodel_api.serving import Dtype

from ..checks import Planned
from ..classifiers.shapes import LINEAR, EncoderShape
from ..shapes import ModelShape
from ..steps.protocol import Task
from ..steps.quantize import stored_bytes

Tasks = Sequence[tuple[Planned, Task]]
PACKED = "W4A16"
HALF = 2


@dataclass(frozen=True)
class Device:
    """A machine without GPU, and how a replica is set up on it.

    Attributes:
        memory: bytes for one replica.
        kv_cache: bytes of vLLM's key-value cache.
        dtype: as the manifest says; what Auto takes depends on the processor, and float32 is the larger.
        length: tokens of a request at most.
    """

    memory: int
    kv_cache: int
    dtype: Dtype
    length: int

    def serves(self, tasks: Tasks) -> bool:
        """Say whether the engine has what it takes on a processor: vLLM multiplies packed weights in 16 bits alone."""
        packed = any(getattr(item.spec, "scheme", "") == PACKED for item, _ in tasks)
        return not (packed and self.dtype == "Float32")

    def replica(self, tasks: Tasks) -> int:
        """Return the bytes of a replica of what steps make, its largest batch included."""
        item, task = tasks[-1]
        after = item.step.after(task)
        if isinstance(after, EncoderShape):
            return ENGINE_BYTES["ONNXRuntime"] + _encoder(item, after, self.length)
        work = vllm_work(after.hidden, after.intermediate, after.vocabulary)
        held = int(VLLM_HELD * self._weights(item, task, after))
        return ENGINE_BYTES["vLLM"] + self.kv_cache + work + held

    def _weights(self, item: Planned, task: Task, after: ModelShape) -> int:
        """Return a decoder's weights as vLLM computes with them: integers as they are stored, the rest in its precision."""
        scheme = getattr(item.spec, "scheme", "")
        wide = FLOAT if self.dtype in ("Auto", "Float32") and scheme != PACKED else HALF
        if not after.quantised or item.spec is None:
            return wide * after.parameters
        # A table in 8 bits stays so; a head of its own does not.
        floats = after.embedding_parameters + after.position_parameters
        if getattr(item.spec, "embeddings", None) is not None:
            floats -= after.vocabulary * after.hidden
        return stored_bytes(task) + (wide - HALF) * floats


def device_of(plan: CompressPlan) -> Device | None:
    """Return the machine that a plan's search is for; None where it names none.

    Raises:
        ValueError: the plan does not say how the lean model is served.
    """
    wanted = plan.search.budget.device if plan.search is not None else None
    if wanted is None:
        return None
    replica = plan.replica
    if replica is None or replica.kv_cache_bytes is None or replica.dtype is None:
        raise ValueError("the plan does not say how the lean model is served")
    return Device(int(quantity(wanted.memory)), replica.kv_cache_bytes, replica.dtype, plan.max_model_length)


def _encoder(item: Planned, after: EncoderShape, length: int) -> int:
    """Return what a session of ONNX Runtime holds and computes with."""
    if after.family == LINEAR:
        return int(HELD["Float32"] * FLOAT * after.parameters) + linear_work(after.hidden)
    precision = "Int8" if getattr(item.spec, "precision", "") == "Int8" else "Float32"
    width = 1 if precision == "Int8" else FLOAT
    held = int(HELD[precision] * width * after.parameters)
    # MobileBERT's attention is narrower than its states, but has as many scores.
    return held + onnx_work(after.hidden, after.intermediate, after.heads, length)
