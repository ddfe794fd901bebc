"""How quality is measured, and what a lean model must reach before it gets traffic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import DecimalString, Fraction, Name, Part
from .budget import Budget
from .external import Fallback
from .pressure import Strain, UnderPressure

Metric = Literal[
    "BalancedAccuracy",
    "ChoiceAccuracy",
    "F1",
    "ExactMatch",
    "TokenF1",
    "RougeL",
    "Perplexity",
    "Agreement",
    "NeighborAgreement",
    "EmbeddingCosine",
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
        description="Quality of an answer. Default: BalancedAccuracy with choices, TokenF1 with answers, Agreement without; NeighborAgreement with task text-embedding: of the ten nearest texts by the large model's vectors, the share that the model's vector finds among those vectors too.",
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


MOST_HELD = 1024
"""Tokens of an answer that may be held back; whoever wants more wants the whole."""


class Promise(Part):
    """Mean quality of the routed pair against the large model's, on the evaluation's distribution."""

    retain: Fraction = Field(
        "0.98", description="Share of the large model's mean quality that is kept. Default 0.98."
    )
    risk: Fraction = Field("0.1", description="Chance that the certificate is wrong. Default 0.1.")


class Monitoring(Part):
    """How the promise is watched in production, where nobody knows the right answers."""

    shadowing: Fraction = Field(
        "0.02",
        description="Share of the accepted lean answers that the large model is asked for too, after the answer was "
        "sent; each is paid for. 0: none, only the scores are watched. Default 0.02.",
    )
    false_alarms: Fraction = Field(
        "0.05",
        description="Chance that a promise which is kept ever raises an alarm, however long it is watched; above 0, "
        "at most 0.5. Default 0.05.",
    )


class Routing(Part):
    """Which model answers."""

    strategy: Literal["Auto", "Fixed", "Predictive", "Cascade", "Combined"] = Field(
        "Cascade",
        description="Cascade asks the lean model first and escalates when it is unsure of its answer. Predictive sends "
        "a request to one model by its prompt alone. Combined is a cascade that sends straight to the large model what "
        "the prompt shows to be hopeless, where that saves money (it needs prices). Auto takes the cheapest of them, or "
        "the lean model alone, on the data's fit part. Fixed: one model, without a promise. Default Cascade.",
    )
    fixed: Literal["Large", "Lean"] = Field(
        "Large", description="With strategy Fixed: the model that answers. Default Large."
    )
    promise: Promise = Field(default_factory=Promise, description="What the routed pair keeps.")
    under_pressure: UnderPressure | None = Field(
        None,
        description="A second, cheaper promise for times of pressure, certified on the same records; where it cannot be "
        "certified, the first stays in force. Default: none, the promise is the same at all times.",
    )
    external_providers: Literal["Forbidden", "Allowed"] = Field(
        "Forbidden",
        description="Whether requests may leave for the external provider in fallback, and prompts of the train part for "
        "the external teacher. Forbidden fails closed: nothing leaves, whatever else fails. Default Forbidden.",
    )
    fallback: Fallback | None = Field(
        None,
        description="An external provider that answers when the large model cannot, where externalProviders is Allowed. "
        "Default: none; a proven lean model stands in.",
    )
    budget: Budget | None = Field(
        None, description="What may be spent; needs prices (spec.pricing). Default: no limit."
    )
    monitoring: Monitoring | None = Field(
        None,
        description="How the promise is watched. Default: 2% of the accepted answers are shadowed, false alarms 5%.",
    )
    usd_per_second: DecimalString | None = Field(
        None,
        alias="usdPerSecond",
        description="What a second of a user's waiting is worth, where strategies are compared by their cost (it needs "
        "spec.pricing). Default: nothing.",
    )
    hold_back: Annotated[int, Field(ge=1, le=MOST_HELD)] | None = Field(
        None,
        description="Decide on so many first tokens of a lean answer instead of the whole: a stream is held back for "
        "these alone, and an answer that is escalated costs no more of them. 16 to 64 suit answers of some length. The "
        "promise is proven for this very number. Default: the whole answer.",
    )
    overrides: Literal["Forbidden", "Allowed"] | None = Field(
        None,
        description="Whether a request may choose by the headers x-leanmodel-route, x-leanmodel-min-confidence and "
        "x-leanmodel-max-cost-usd. Default Forbidden: such a request is refused.",
    )

    def proven(self) -> Routing:
        """Return what of it a proof depends on: how it is watched, overridden, stood in or paid for, and what counts as pressure, ask for no new one."""
        kept = {
            "monitoring": None,
            "overrides": None,
            "external_providers": "Forbidden",
            "fallback": None,
            "budget": None,
            "under_pressure": self.under_pressure
            and self.under_pressure.model_copy(update={"when": Strain()}),
        }
        return self.model_copy(update=kept)
