"""What a prove Job gives back: every figure with its interval, and what was decided."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .base import Part
from .figure import Estimate as Estimate
from .plan import RevisionRef, StepFigure
from .routing_policy import AnyEvaluation, AnyPolicy
from .search import SearchFound

Verdict = Literal["Routed", "LeanTakesAll", "LargeOnly", "GateFailed"]


class GateResult(Part):
    """How one gate came out."""

    metric: str
    bound: str = Field(description="Such as '>= 0.85'.")
    found: float
    used: Literal["Estimate", "Bound"]
    passed: bool
    message: str = Field(description="In words, with what to do when it failed.")


class ModelFigures(Part):
    """One model (or the routed pair, or a baseline) on one part of the data."""

    name: str = Field(description="large, lean, pair, always-choice, tfidf-logreg, random, oracle…")
    part: str = Field(description="report or test.")
    figures: dict[str, Estimate] = Field(description="By metric.")
    large_share: float | None = None


class Speed(Part):
    """Speed of one model on the engine, measured in turn with the other; tokens of prompts and answers together."""

    requests_per_second: Estimate
    tokens_per_second: float
    p50_ms: float
    p99_ms: float
    memory_bytes: int | None = None


class DifferentAnswer(Part):
    """A prompt on which the two models differ."""

    prompt: str
    wanted: str | None
    large: str
    lean: str
    confidence: float | None
    route: str


class ProveReport(Part):
    """The proof of one lean revision."""

    name: str
    created: str = Field(description="When (RFC 3339).")
    large: RevisionRef
    lean: RevisionRef
    metric: str
    parts: dict[str, int] = Field(description="Records per part.")
    verdict: Verdict
    reason: str = Field(description="The verdict in words, with what to do.")
    gates: list[GateResult]
    models: list[ModelFigures] = Field(description="Models, pair and baselines, per part.")
    size_ratio: Estimate
    throughput_ratio: Estimate
    quality_retained: Estimate = Field(description="Pair by large, on the report part.")
    lean_quality_retained: Estimate
    saving: Estimate | None = Field(None, description="Avoidable cost on the report part.")
    speed: dict[str, Speed]
    promise_held_on_test: bool | None = Field(
        None, description="Whether the pair kept the promise on the test part."
    )
    policy: AnyPolicy
    evaluation: AnyEvaluation
    curve: list[dict[str, float]] = Field(
        default_factory=list, description="Quality-cost points by threshold."
    )
    steps: list[StepFigure] = Field(default_factory=list)
    search: SearchFound | None = Field(
        None, description="How the lean model was found, where it was searched for."
    )
    examples: list[DifferentAnswer] = Field(default_factory=list)
    environment: dict[str, Any] = Field(default_factory=dict, description="Engine, precision, machine.")
