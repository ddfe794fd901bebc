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


class TeacherEstimate(Part):
    """What one step would ask of the external teacher."""

    field: str = Field(description="The step's place in the manifest.")
    model: str = Field(description="Model name at the provider.")
    base_url: str = Field(description="The provider's address.")
    prompts: int = Field(description="Prompts whose answers the step learns.")
    answered: int = Field(description="How many of them are answered and kept already.")
    calls: int = Field(description="Calls that are left, if none has to be repeated.")
    usd: str = Field(
        description="About what they cost: four characters a token, answers as long as they may be (a choice: as long as the longest)."
    )
    usd_at_most: str = Field(
        description="What they can cost at most: a token for each byte, answers as long as they may be."
    )
    max_calls: int = Field(description="spec.teacher.maxCalls.")
    max_usd: str = Field(alias="maxUSD", description="spec.teacher.maxUSD.")
    spent_calls: int = Field(description="Calls that earlier runs made; they count.")
    spent_usd: str = Field(alias="spentUSD", description="What they cost; it counts.")


class RunEstimate(Part):
    """All steps of both models, and what keeps them from running here."""

    steps: list[StepEstimate] = Field(description="Steps in order.")
    memory_limit: int = Field(description="What the Job may use (spec.jobs.compress.memory).")
    memory_free: int = Field(description="What this machine has free.")
    disk_free: int = Field(description="What the store's disk has free.")
    teacher: list[TeacherEstimate] = Field(
        default_factory=list,
        description="What steps would ask of the external teacher; empty where none does.",
    )
    refusals: list[str] = Field(
        default_factory=list, description="Why a run would be refused here; empty where it would not."
    )
