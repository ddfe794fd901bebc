"""Version 2 of the policy: strategies that decide before generation, rules for groups, and what monitors need.

Version 1 (`leanmodel_api.policy.Policy`) knows a cascade and the two single models. A reader of version 1 refuses
version 2 by its number; `AnyPolicy` reads both.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .policy import Certificate, Fraction, LabelFreeBound, Policy, PolicyEvaluation, Predictor
from .scores import ScoreReference

Strategy = Literal["fixed", "predictive", "cascade", "combined"]
RuleKind = Literal["all-large", "all-lean", "predictive", "cascade", "combined"]


class GroupRule(BaseModel):
    """What holds for one group: its own kind and thresholds, with a certificate of its own."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    kind: RuleKind = Field(description="As a policy's.")
    ask_at: Fraction = Field(default=0.0, description="As a policy's.")
    threshold: Fraction = Field(description="As a policy's.")
    certificate: Certificate = Field(description="The promise to this group, at its share of the risk.")
    expected_large_share: Fraction = Field(description="Large share of the group on the report part.")


class SecondPoint(BaseModel):
    """Where the policy goes under pressure: further along the same walk, as far as a lower promise reaches.

    Predictors, and how they are read, are the policy's own. `groups` has the rules of the groups at this promise.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    kind: RuleKind = Field(description="As a policy's.")
    ask_at: Fraction = Field(default=0.0, description="As a policy's.")
    threshold: Fraction = Field(description="As a policy's.")
    certificate: Certificate = Field(
        description="The lower promise; it and the policy's own are both right with the stated confidence."
    )
    expected_large_share: Fraction = Field(description="Large share on the report part.")
    groups: dict[str, GroupRule] = Field(default_factory=dict, description="As a policy's.")


class Considered(BaseModel):
    """A strategy as the fit part saw it: what it was chosen by."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    strategy: Strategy = Field(description="Name of the strategy.")
    before: str | None = Field(default=None, description="Predictor that reads the prompt alone.")
    after: str | None = Field(default=None, description="Predictor that reads the lean answer.")
    cost: float = Field(
        ge=0.0, description="Predicted cost per request with the price of latency, in the unit of `basis`."
    )
    lean_calls: Fraction = Field(description="Predicted share of requests that ask the lean model.")
    large_share: Fraction = Field(description="Predicted share of requests that the large model answers.")
    basis: Literal["usd", "large-share"] = Field(
        description="US dollars, or large calls alone where records carry no costs (lean calls count nothing)."
    )
    chosen: bool = Field(default=False, description="Whether it is the policy's.")


class RoutingPolicy(Policy):
    """What the router decides with.

    A request asks the lean model where the confidence of `before` (of the prompt alone) is at `ask_at` or above,
    and keeps its answer where the confidence of `predictor` (of the answer) is at `threshold` or above; else the
    large model answers. `predictive`: `before` alone decides and the lean answer is kept as it is. `cascade`:
    the lean model is always asked. `combined`: both.
    """

    # The contract's own literals are narrower; a reader of version 1 must not take these for its own.
    version: Literal["2"] = Field(default="2", description="Version of this format.")  # type: ignore[assignment]
    kind: RuleKind = Field(  # type: ignore[assignment]
        description="What a request gets; with `groups` one of a group that is not listed."
    )
    before: Predictor | None = Field(
        default=None, description="Reads the prompt alone; needed by predictive and combined."
    )
    ask_at: Fraction = Field(
        default=0.0, description="Ask the lean model at this confidence of `before` or above."
    )
    groups: dict[str, GroupRule] = Field(
        default_factory=dict, description="Rules by group; empty: one rule for all."
    )
    considered: tuple[Considered, ...] = Field(
        default=(), strict=False, description="Strategies that the fit part chose among."
    )
    scores: ScoreReference | None = Field(
        default=None, description="Certified scores, for the score-drift monitor."
    )
    usd_per_second: float = Field(default=0.0, ge=0.0, description="Price of latency it was chosen with.")
    under_pressure: SecondPoint | None = Field(
        default=None, description="The second promise; null: none was asked for."
    )

    def relaxed(self) -> RoutingPolicy | None:
        """The policy that holds under pressure; None where there is none, or it is not certified or not cheaper."""
        second = self.under_pressure
        if second is None or not second.certificate.certified or self._same(second):
            return None
        changes = {name: getattr(second, name) for name in SecondPoint.model_fields}
        found = self.model_copy(update={**changes, "under_pressure": None, "curve": ()})
        return found.model_copy(update={"digest": found.computed_digest()})

    def _same(self, second: SecondPoint) -> bool:
        """Whether the second point routes every request as the first does."""
        return _routes(self) == _routes(second)

    @model_validator(mode="after")
    def _rules_have_their_predictors(self) -> RoutingPolicy:
        second = self.under_pressure
        for name, kind in (
            ("kind", self.kind),
            *((f"groups.{key}", rule.kind) for key, rule in self.groups.items()),
            *([("under_pressure.kind", second.kind)] if second is not None else []),
            *(
                (f"under_pressure.groups.{key}", rule.kind)
                for key, rule in (second.groups if second else {}).items()
            ),
        ):
            if kind in ("predictive", "combined") and self.before is None:
                raise ValueError(f"before: missing, expected a predictor because {name} is {kind}")
            if kind in ("cascade", "combined") and self.predictor is None:
                raise ValueError(f"predictor: missing, expected one because {name} is {kind}")
        return self


def _routes(rule: RoutingPolicy | SecondPoint) -> tuple[object, ...]:
    groups = {name: (one.kind, one.ask_at, one.threshold) for name, one in rule.groups.items()}
    return rule.kind, rule.ask_at, rule.threshold, groups


class SecondFigures(BaseModel):
    """What the second point does on the evaluated records."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    kind: RuleKind = Field(description="Kind of its rule.")
    large_share: Fraction = Field(description="Share of requests that the large model answers.")
    lean_calls: Fraction = Field(description="Share of requests that ask the lean model.")
    quality: Fraction = Field(description="Quality of the routed pair.")
    quality_retained: float | None = Field(
        default=None, description="quality / large quality; null where the large one is 0."
    )
    cost: float | None = Field(
        default=None, ge=0.0, description="US dollars per request; null where costs are unknown."
    )
    promise_held: bool = Field(description="The point estimate, held against the lower promise.")
    label_free: LabelFreeBound | None = Field(default=None, description="Accepted and different.")


class RoutingEvaluation(PolicyEvaluation):
    """A policy of version 2 on records it has not seen."""

    kind: RuleKind = Field(description="Kind of the policy.")  # type: ignore[assignment]
    lean_calls: Fraction = Field(description="Share of requests that ask the lean model.")
    rules: dict[str, RuleKind] = Field(
        default_factory=dict, description="Kind of each group's rule; empty: one rule for all."
    )
    under_pressure: SecondFigures | None = Field(
        default=None, description="The second point on the same records; null: there is none in use."
    )


AnyPolicy = Annotated[RoutingPolicy | Policy, Field(discriminator="version")]
"""A policy of either version, told apart by its number."""
AnyEvaluation = RoutingEvaluation | PolicyEvaluation
"""The evaluation of either: only version 2's has `lean_calls`."""
