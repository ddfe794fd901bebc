"""What the Jobs may use: cores, memory, and for compression the device that it computes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from .base import Part, Quantity
from .errors import Issue

if TYPE_CHECKING:
    from .resource import Spec

Device = Literal["Auto", "CPU", "GPU"]


class JobResources(Part):
    """Bounds of one kind of Job."""

    cpu: Quantity = Field("2", description="Cores. Default 2.")
    memory: Quantity = Field(
        "8Gi",
        description="Memory limit; the estimate of the plan's peak is held against it before any work. Default 8Gi.",
    )


class CompressResources(JobResources):
    """Bounds of the compress Jobs, and what they compute on."""

    gpu: int = Field(
        0,
        ge=0,
        le=64,
        description="GPUs of a Job's pod. On one machine the Job sees those that are there. Default 0.",
    )
    device: Device = Field(
        "Auto",
        description="What steps compute on. Auto: a GPU where the Job sees one, else the CPU. GPU refuses to run without. Default Auto.",
    )


class Jobs(Part):
    """Bounds of the Jobs."""

    compress: CompressResources = Field(default_factory=CompressResources, description="Compress Jobs.")
    prove: JobResources = Field(
        default_factory=lambda: JobResources(cpu="1", memory="2Gi"), description="Prove Jobs."
    )


def device_issues(spec: Spec) -> Iterable[Issue]:
    """A GPU that is asked for is given, and one that is given is used."""
    compress = spec.jobs.compress
    if compress.device == "GPU" and not compress.gpu:
        found = "found 0, and device is GPU"
        yield Issue("spec.jobs.compress.gpu", found, "write 1, or device: Auto")
    if compress.device == "CPU" and compress.gpu:
        found = f"found {compress.gpu}, and device is CPU"
        yield Issue("spec.jobs.compress.gpu", found, "write 0, or device: Auto")


CEL_COMPRESS: list[tuple[str, str]] = [
    (
        "!has(self.device) || self.device != 'GPU' || (has(self.gpu) && self.gpu > 0)",
        "gpu: device is GPU: write 1 or more, or device: Auto",
    ),
    (
        "!has(self.device) || self.device != 'CPU' || !has(self.gpu) || self.gpu == 0",
        "gpu: device is CPU: write 0, or device: Auto",
    ),
]
"""The same for the API server, at spec.jobs.compress."""
