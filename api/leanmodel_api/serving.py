"""How the models are served, what they cost, where artifacts live, and how a new revision comes in."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .base import DecimalString, Duration, Fraction, Name, Part, Quantity


class Resources(Part):
    """What one replica gets."""

    cpu: Quantity = Field("1", description="Cores. Default 1.")
    memory: Quantity = Field("4Gi", description="Memory limit. Default 4Gi.")
    gpu: int = Field(0, ge=0, le=64, description="GPUs. Default 0.")


class ModelServing(Part):
    """One model's replicas and engine."""

    engine: Literal["vLLM"] = Field("vLLM", description="Engine that runs the model. Default vLLM.")
    min_replicas: int = Field(
        1, ge=0, le=1000, description="Replicas at least; 0 lets the model sleep (reserved). Default 1."
    )
    max_replicas: int = Field(
        1,
        ge=1,
        le=1000,
        description="Replicas at most; more than minReplicas scales with load (reserved). Default 1.",
    )
    resources: Resources = Field(default_factory=Resources, description="What one replica gets.")
    max_model_length: int = Field(
        1024, ge=16, le=1_000_000, description="Tokens of prompt and answer together at most. Default 1024."
    )
    kv_cache: Quantity = Field(
        "512Mi", description="Memory for the key-value cache of a replica on CPU. Default 512Mi."
    )
    dtype: Literal["Auto", "Float32", "BFloat16", "Float16"] = Field(
        "Auto",
        description="Precision of computation; Auto takes the fastest that the hardware has. Default Auto.",
    )


class RouterServing(Part):
    """The router's replicas and address."""

    replicas: int = Field(1, ge=1, le=100, description="Router replicas. Default 1.")
    port: int = Field(8000, ge=1024, le=65535, description="Port of the endpoint. Default 8000.")
    resources: Resources = Field(default_factory=Resources, description="What one replica gets.")


class Serving(Part):
    """The data plane."""

    large: ModelServing = Field(default_factory=ModelServing, description="The large model.")
    lean: ModelServing = Field(default_factory=ModelServing, description="The lean model.")
    router: RouterServing = Field(default_factory=RouterServing, description="The router.")
    pool: Name | None = Field(None, description="Name of a shared cluster. Reserved.")
    overrides: dict[str, Any] | None = Field(None, description="Untyped changes to pod templates. Reserved.")


class Price(Part):
    """What a model costs: per hour of a replica, or per million tokens."""

    usd_per_hour: DecimalString | None = Field(
        None,
        description="US dollars per replica-hour; a request's share follows the throughput measured in the proof.",
    )
    input_usd_per_million_tokens: DecimalString | None = Field(
        None, alias="inputUSDPerMillionTokens", description="US dollars per million prompt tokens."
    )
    output_usd_per_million_tokens: DecimalString | None = Field(
        None, alias="outputUSDPerMillionTokens", description="US dollars per million answer tokens."
    )


class Pricing(Part):
    """Prices of both models, on one basis."""

    large: Price = Field(description="The large model's price.")
    lean: Price = Field(description="The lean model's price.")


class Store(Part):
    """Where artifacts live."""

    uri: str = Field(
        min_length=1,
        max_length=1024,
        description="file:PATH here; s3://, gs:// and pvc:// are reserved. Default: the operator's store.",
    )
    credentials_secret: Name | None = Field(None, description="Secret with the credentials. Reserved.")


class JobResources(Part):
    """Bounds of one kind of Job."""

    cpu: Quantity = Field("2", description="Cores. Default 2.")
    memory: Quantity = Field(
        "8Gi",
        description="Memory limit; the estimate of the plan's peak is held against it before any work. Default 8Gi.",
    )


class Jobs(Part):
    """Bounds of the Jobs."""

    compress: JobResources = Field(default_factory=JobResources, description="Compress Jobs.")
    prove: JobResources = Field(
        default_factory=lambda: JobResources(cpu="1", memory="2Gi"), description="Prove Jobs."
    )


class Pause(Part):
    """How long a rollout step lasts."""

    duration: Duration = Field("10m", description="Such as 30s, 10m, 1h30m. Default 10m.")


class RolloutStep(Part):
    """A share of traffic and how long it is watched."""

    weight: int = Field(ge=0, le=100, description="Per cent of eligible traffic for the new revision.")
    pause: Pause = Field(default_factory=Pause, description="How long it is watched.")


class Rollout(Part):
    """How a proven revision takes traffic. Steps and analysis are reserved: it takes all at once."""

    steps: list[RolloutStep] = Field(default_factory=list, max_length=20, description="Reserved.")
    max_error_rate: Fraction | None = Field(
        None, description="Reserved: share of failed requests that triggers a rollback."
    )
    on_failure: Literal["Rollback", "Pause"] = Field(
        "Rollback", description="What happens when a new revision fails. Default Rollback; Pause is reserved."
    )
