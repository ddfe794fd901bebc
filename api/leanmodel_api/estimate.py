"""What a run would take, said before it: the answer of ``leanmodel estimate``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Part


class StepEstimate(Part):
    """One step, before it runs."""

    role: Literal["Large", "Lean"] = Field(description="Which model it makes.")
    type: str = Field(description="Step, such as Fetch, Finetune, Prune.")
    field: str = Field(description="Its place in the manifest.")
    parameters: int = Field(description="Parameters of what comes out.")
    bytes: int | None = Field(
        None, description="Weights as stored for serving; none where only the files can tell."
    )
    memory_bytes: int = Field(description="Peak of memory.")
    disk_bytes: int = Field(description="Bytes that it writes, checkpoints included.")
    seconds: float = Field(description="Wall time on this machine, by its measured speed.")


class RunEstimate(Part):
    """All steps of both models, and what keeps them from running here."""

    steps: list[StepEstimate] = Field(description="Steps in order.")
    memory_limit: int = Field(description="What the Job may use (spec.jobs.compress.memory).")
    memory_free: int = Field(description="What this machine has free.")
    disk_free: int = Field(description="What the store's disk has free.")
    refusals: list[str] = Field(
        default_factory=list, description="Why a run would be refused here; empty where it would not."
    )
