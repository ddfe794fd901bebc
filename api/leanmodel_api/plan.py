"""What a Job is told. A plan holds no secret and no clock: equal plans are equal work."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field

from .base import DecimalString, Digest, Part
from .classification import Task
from .datasets import DataSet
from .evaluation import Evaluation, Routing
from .jobs import Device
from .search import Search, SearchFound
from .serving import Dtype, Price
from .sources import Source
from .steps import Finetune, Step
from .teacher import TeacherAccess


class JobLimits(Part):
    """What the Job may use."""

    memory_bytes: int = Field(description="Memory limit; estimates are held against it before any work.")
    threads: int = Field(1, ge=1, description="Threads of computation.")
    device: Device = Field("Auto", description="What steps compute on; Auto: a GPU where there is one.")


class ReplicaPlan(Part):
    """How the lean model will be served, as far as a search's budget asks: what is found depends on it."""

    threads: int | None = Field(
        None, ge=1, description="Threads of the engine; for budgets of time or money."
    )
    usd_per_hour: DecimalString | None = Field(None, description="Its price; for a budget of money.")
    kv_cache_bytes: int | None = Field(None, description="Key-value cache; for a device.")
    dtype: Dtype | None = Field(None, description="Precision of computation; for a device.")


class CompressPlan(Part):
    """Make one artifact: the large model (fetch, finetune) or the lean one (fetch, or steps from the large)."""

    name: str = Field(description="The LeanModel's name.")
    role: Literal["Large", "Lean"] = Field(description="Which model is made.")
    task: Task | None = Field(None, description="What the model does. Default: it generates text.")
    source: Source | None = Field(
        None, description="Where the model comes from; none for a lean model made by steps."
    )
    base: Digest | None = Field(None, description="Artifact that the steps start from (the large model's).")
    teacher: Digest | None = Field(None, description="Artifact that teaches; the large model's.")
    external_teacher: TeacherAccess | None = Field(
        None, description="External model whose answers steps learn; none where no step does."
    )
    finetune: Finetune | None = Field(None, description="Adaptation of the large model.")
    steps: list[Step] = Field(default_factory=list, description="Steps in order.")
    search: Search | None = Field(None, description="What to look for where the steps are not given.")
    replica: ReplicaPlan | None = Field(
        None, description="How what is found will be served; none where no budget asks."
    )
    data_sets: list[DataSet] = Field(default_factory=list, description="Data sets that the steps name.")
    proof_data_set: str | None = Field(
        None,
        description="Name of the data set of the proof, where there are several: no step may learn its held-out texts. Default: the only one, whose parts share no text.",
    )
    max_model_length: int = Field(1024, description="Tokens that the engine will serve.")
    seed: int = Field(0, description="Seed of everything random.")
    limits: JobLimits = Field(description="What the Job may use.")
    base_dir: str = Field(".", description="Folder that file: sources are relative to.")

    def key(self) -> str:
        """Return the plan's hash (16 hex digits): names a Job; limits and folder do not count."""
        return plan_key(self, exclude={"limits", "base_dir"})


class RevisionRef(Part):
    """A served revision, as the prove Job reaches it."""

    name: str = Field(description="Revision, such as large-1a2b3c4d.")
    artifact: Digest = Field(description="Digest of its weights.")
    bytes: int = Field(description="Size as stored for serving.")


class ProvePlan(Part):
    """Prove one lean revision against the large one, through the router's internal route."""

    name: str = Field(description="The LeanModel's name.")
    large: RevisionRef = Field(description="The large revision.")
    lean: RevisionRef = Field(description="The lean revision.")
    task: Task | None = Field(None, description="What the models do. Default: they generate text.")
    data_set: DataSet = Field(description="Data set whose fit, certify, report and test parts are asked.")
    evaluation: Evaluation = Field(description="Metric, sampling, gates.")
    routing: Routing = Field(description="Strategy and promise.")
    large_price: Price | None = Field(None, description="Price of the large model.")
    lean_price: Price | None = Field(None, description="Price of the lean model.")
    engine: str = Field(description="Engine, version and precision: part of what the certificate holds for.")
    large_report: str | None = Field(
        None, description="Digest or path of the compress result of the large model."
    )
    steps: list[StepFigure] = Field(
        default_factory=list, description="What each compression step made, for the report."
    )
    search: SearchFound | None = Field(None, description="How the lean model was found, for the report.")
    seed: int = Field(0, description="Seed of calibration and bootstrap.")
    base_dir: str = Field(".", description="Folder that file: sources are relative to.")

    def key(self) -> str:
        """Return the plan's hash (16 hex digits); the folder does not count."""
        return plan_key(self, exclude={"base_dir", "steps", "search"})


class StepFigure(Part):
    """What one compression step did."""

    type: str = Field(description="Step, such as Fetch, Finetune, Prune, Distill, Quantize.")
    detail: str = Field(
        "", description="Its settings in short, such as 'keepLayers 4 (0,1,2,29)' or 'W8A8 RTN'."
    )
    key: str = Field("", description="Hash of the step's inputs: its place in the store.")
    artifact: str = Field("", description="Digest of what came out.")
    bytes: int = Field(0, description="Weights as stored for serving (bf16 where not quantised).")
    parameters: int = Field(0, description="Parameters.")
    modules_changed: int = Field(0, description="Modules that the step changed.")
    seconds: float = Field(0, description="Wall time of the run that made it.")
    device: str = Field("CPU", description="What it computed on: CPU, or GPUs by number and name.")
    peak_memory_bytes: int = Field(0, description="Peak resident memory of the process during the step.")
    estimated_memory_bytes: int = Field(0, description="What was estimated before.")
    cached: bool = Field(False, description="Whether it was found in the store.")
    resumed_at: int | None = Field(None, description="Optimiser step or layer from which it resumed.")
    figures: dict[str, float] = Field(
        default_factory=dict, description="Cheap checks: loss, perplexity on validation, choice accuracy…"
    )


class CompressResult(Part):
    """What a compress Job made."""

    name: str
    role: Literal["Large", "Lean"]
    plan: str = Field(description="The plan's key.")
    artifact: Digest = Field(description="Digest of the artifact.")
    bytes: int = Field(description="Weights as stored for serving.")
    parameters: int = 0
    steps: list[StepFigure] = Field(default_factory=list)
    search: SearchFound | None = Field(None, description="How it was found, where it was searched for.")
    seconds: float = 0


def plan_key(part: Part, exclude: set[str]) -> str:
    """Return a short hash of a plan without the fields that do not change its outcome."""
    text = part.model_dump_json(by_alias=True, exclude_none=True, exclude=exclude)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


ProvePlan.model_rebuild()
