"""How quality is measured, and what a lean model must reach before it gets traffic."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import DecimalString, Fraction, Name, Part

Metric = Literal[
    "BalancedAccuracy", "ChoiceAccuracy", "F1", "ExactMatch", "TokenF1", "RougeL", "Perplexity", "Agreement"
]
GateMetric = Literal[
    "LeanQuality", "LeanQualityRetained", "PairQualityRetained", "LargeQuality", "SizeRatio",
    "ThroughputRatio", "MemoryRatio", "Saving", "LeanOverBaseline", "Perplexity",
]  # fmt: skip


class Gate(Part):
    """A bound that the measured figure must keep; a lean model that misses it never gets traffic."""

    metric: GateMetric = Field(
        description="LeanQuality, LargeQuality: the metric itself. LeanQualityRetained, PairQualityRetained: as a "
        "share of the large model's. SizeRatio, MemoryRatio: lean by large, bytes. ThroughputRatio: lean by large, "
        "requests per second. Saving: share of cost the router avoids. LeanOverBaseline: lean's quality minus that of "
        "TF-IDF with logistic regression. Perplexity: the lean model's."
    )
    min: DecimalString | None = Field(None, description="Smallest value that passes. Either this or max.")
    max: DecimalString | None = Field(None, description="Largest value that passes. Either this or min.")
    use: Literal["Estimate", "Bound"] = Field(
        "Estimate",
        description="Hold the estimate, or the unfavourable end of its 95% interval, against the gate. Default Estimate.",
    )


class Sampling(Part):
    """Sampling parameters of the proof; the certificate holds for requests that use the same."""

    max_tokens: int = Field(64, ge=1, le=32768, description="Tokens of an answer at most. Default 64.")
    temperature: DecimalString = Field(
        "0",
        description="0 is greedy; others are refused, as a sampled model disagrees with itself. Default 0.",
    )


class Evaluation(Part):
    """The proof."""

    data_set: Name | None = Field(
        None,
        description="Data set whose fit, certify, report and test parts are asked. Default: the only one.",
    )
    metric: Metric | None = Field(
        None,
        description="Quality of an answer. Default: BalancedAccuracy with choices, TokenF1 with answers, Agreement without.",
    )
    sampling: Sampling = Field(default_factory=Sampling, description="Sampling parameters.")
    concurrency: int = Field(
        8, ge=1, le=1024, description="Requests under way at once: as production would have. Default 8."
    )
    gates: list[Gate] = Field(
        default_factory=list, max_length=32, description="Bounds for the lean model alone and for the pair."
    )
    throughput_requests: int = Field(
        200, ge=10, le=100000, description="Requests per model for the speed comparison. Default 200."
    )


class Promise(Part):
    """Mean quality of the routed pair against the large model's, on the evaluation's distribution."""

    retain: Fraction = Field(
        "0.98", description="Share of the large model's mean quality that is kept. Default 0.98."
    )
    risk: Fraction = Field("0.1", description="Chance that the certificate is wrong. Default 0.1.")


class Budget(Part):
    """Spending limits. Reserved: not supported yet."""

    large_usd_per_hour: DecimalString | None = Field(
        None, alias="largeUSDPerHour", description="US dollars an hour for the large model."
    )


class Routing(Part):
    """Which model answers."""

    strategy: Literal["Fixed", "Predictive", "Cascade", "Combined"] = Field(
        "Cascade",
        description="Cascade asks the lean model first and escalates when it is unsure. Fixed, Predictive and Combined are reserved. Default Cascade.",
    )
    fixed: Literal["Large", "Lean"] = Field(
        "Large", description="With strategy Fixed (reserved): the model that answers. Default Large."
    )
    promise: Promise = Field(default_factory=Promise, description="What the routed pair keeps.")
    external_providers: Literal["Forbidden", "Allowed"] = Field(
        "Forbidden",
        description="Whether requests may leave for an external provider; Allowed is reserved. Default Forbidden.",
    )
    budget: Budget | None = Field(None, description="Spending limits. Reserved.")
