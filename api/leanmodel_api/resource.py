"""The LeanModel resource."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .base import NAME_PATTERN, Part
from .datasets import DataSet
from .evaluation import Evaluation, Routing
from .jobs import Jobs
from .models import Large, Lean
from .serving import Pricing, Rollout, Serving, Store
from .status import Status
from .teacher import Teacher

API_VERSION = "leanmodel.io/v1alpha1"
KIND = "LeanModel"


class Metadata(BaseModel):
    """The part of Kubernetes' object metadata that we read; the rest is kept as it is."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    name: str = Field(pattern=NAME_PATTERN, max_length=63)
    namespace: str = Field("default", pattern=NAME_PATTERN, max_length=63)
    generation: int = 1
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Spec(Part):
    """What is wanted: a large model's answers, at a quality, for as little money as possible."""

    task: Literal["text-generation", "text-classification", "text-embedding"] = Field(
        "text-generation", description="What the model does: text-generation (a decoder, answers in words) or text-classification "
        "(an encoder with a head, labels with probabilities) or text-embedding (a sentence encoder, one vector per text). Default text-generation."
    )  # fmt: skip
    large: Large = Field(description="The large model: teacher, fallback, and the measure of the promise.")
    lean: Lean | None = Field(
        None, description="The cheap model. Default: none, the large one answers everything."
    )
    teacher: Teacher | None = Field(
        None,
        description="An external model whose answers steps learn (answers: Teacher), where routing.externalProviders is Allowed. Default: none.",
    )
    data_sets: Annotated[list[DataSet], Field(max_length=16)] = Field(
        default_factory=list, description="Data for training and proof, by name."
    )
    evaluation: Evaluation = Field(default_factory=Evaluation, description="How quality is proven.")
    routing: Routing = Field(default_factory=Routing, description="Which model answers which request.")
    serving: Serving = Field(default_factory=Serving, description="Replicas, engines, resources.")
    store: Store | None = Field(None, description="Where artifacts live. Default: the operator's store.")
    pricing: Pricing | None = Field(None, description="Prices. Default: none, and no cost is reported.")
    jobs: Jobs = Field(default_factory=Jobs, description="Bounds of the compress and prove Jobs.")
    rollout: Rollout = Field(default_factory=Rollout, description="How a proven revision takes traffic.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of training and calibration. Default 0.")
    suspend: bool = Field(
        False, description="Stop starting Jobs; what serves goes on serving. Default false."
    )


class LeanModel(BaseModel):
    """A LeanModel as ``kubectl apply`` takes it."""

    model_config = ConfigDict(
        extra="forbid", populate_by_name=True, alias_generator=Part.model_config.get("alias_generator")
    )

    api_version: Literal["leanmodel.io/v1alpha1"]
    kind: Literal["LeanModel"]
    metadata: Metadata
    spec: Spec
    status: Status | None = None
