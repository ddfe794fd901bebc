"""The status of a LeanModel: what is true now, and what to do about it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Part

ConditionType = Literal["Accepted", "Compressed", "Proven", "Serving", "Progressing", "Degraded", "Ready"]


class Condition(Part):
    """One statement about the resource, in Kubernetes' form."""

    type: ConditionType = Field(description="What is stated.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(description="CamelCase reason for machines.")
    message: str = Field("", description="What happened and what to do, for people.")
    observed_generation: int = Field(description="Generation that it is about.")
    last_transition_time: str = Field(description="When status last changed (RFC 3339).")


class Interval(Part):
    """Ends of a 95% interval, as decimal strings."""

    low: str = Field(description="Lower end.")
    high: str = Field(description="Upper end.")


class Progress(Part):
    """Where the work stands."""

    step: str = Field("", description="Step under way.")
    percent: int = Field(0, ge=0, le=100, description="Per cent of the whole.")
    eta_seconds: int | None = Field(None, description="Seconds until the lean model joins, as estimated.")


class ReportSummary(Part):
    """What was won, with 95% intervals; ratios are lean by large."""

    size_ratio: str | None = Field(None, description="Bytes as stored for serving, lean by large (in bf16).")
    size_ratio_interval: Interval | None = Field(
        None, description="Interval of sizeRatio (a count: both ends equal)."
    )
    throughput_ratio: str | None = Field(
        None, description="Requests a second, lean by large, in one run on the engine."
    )
    throughput_ratio_interval: Interval | None = Field(None, description="Interval of throughputRatio.")
    quality_retained: str | None = Field(None, description="Quality of the routed pair by the large model's.")
    quality_retained_interval: Interval | None = Field(None, description="Interval of qualityRetained.")
    lean_quality: str | None = Field(None, description="The lean model's own quality.")
    large_quality: str | None = Field(None, description="The large model's quality.")
    metric: str | None = Field(None, description="Metric of the qualities.")
    large_share: str | None = Field(None, description="Share of requests that escalate to the large model.")
    saving: str | None = Field(None, description="Avoidable cost: share saved by routing.")
    certified: bool | None = Field(None, description="Whether the promise is certified.")
    verdict: str | None = Field(None, description="What the proof decided, in a word.")
    url: str | None = Field(
        None,
        description="Address of the report; in a cluster with the bearer token `internal` of Secret lm-NAME-tokens.",
    )


class CostSummary(Part):
    """Money so far, as the router counted it."""

    usd: str = Field("0", description="US dollars spent.")
    counterfactual_usd: str = Field("0", description="US dollars, had everything gone to the large model.")
    saving_usd: str = Field("0", description="The difference.")


class Revision(Part):
    """One model revision that is served."""

    name: str = Field(description="Revision, such as lean-1a2b3c4d.")
    artifact: str = Field(description="Digest of its weights.")
    bytes: int = Field(0, ge=0, description="Size as stored.")


class Status(Part):
    """What is true now."""

    observed_generation: int = Field(0, description="Generation that the status is about.")
    conditions: list[Condition] = Field(default_factory=list, description="Statements, by type.")
    phase: str = Field("", description="Where the loop stands, in a word.")
    progress: Progress | None = Field(None, description="Work under way.")
    large_revision: Revision | None = Field(None, description="The large model that is served.")
    stable_revision: Revision | None = Field(None, description="The lean revision with traffic.")
    candidate_revision: Revision | None = Field(None, description="The lean revision being proven.")
    report: ReportSummary | None = Field(None, description="What the proof found.")
    cost: CostSummary | None = Field(None, description="Money so far.")
    url: str | None = Field(None, description="Address of the OpenAI-compatible endpoint.")
    metrics_url: str | None = Field(None, description="Address that Prometheus scrapes.")
