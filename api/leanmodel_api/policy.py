"""The contract of routing: calibration records, policies, certificates and evaluations.

Calibration (in the prove Job or offline) reads `Record`s and writes a `Policy`; the router reads the policy
and decides with it; an evaluation of a policy on other records is a `PolicyEvaluation`. Keys are snake_case
because these are data files that people write and read with their own tools, not Kubernetes resources.

Units: qualities and shares are fractions in [0, 1], costs are US dollars per request, latencies are
seconds, log-probabilities are natural logarithms (at most 0).
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share or a quality: 0 to 1, both included."""
Dollars = Annotated[float, Field(ge=0.0)]
"""US dollars per request."""
Seconds = Annotated[float, Field(ge=0.0)]
"""Seconds of wall-clock time."""

_T = TypeVar("_T")
Sequence = Annotated[tuple[_T, ...], Field(strict=False)]
"""A tuple that JSON's arrays and Python's lists may fill; its items stay strict."""

LOGPROB_TOLERANCE = 1e-3
"""Engines round: a log-probability may exceed 0 by this much before it is called wrong."""

PolicyKind = Literal["all-large", "all-lean", "cascade"]
Method = Literal["ltt-exact", "ltt-target-betting", "ltt-betting", "ltt-t (approximate)"]
Aggregate = Literal["mean", "balanced"]
Decision = Annotated[str, Field(pattern=r"^(whole-answer|first-[1-9][0-9]{0,3}-tokens)$")]
"""What a decision on an answer reads; a router that does not know of prefixes refuses a policy for one."""
Outcome = Literal[
    "cascade-certified",
    "lean-at-least-as-good",
    "lean-keeps-promise",
    "too-few-records",
    "promise-not-shown",
    "no-saving",
]


class _Contract(BaseModel):
    """Frozen, strict, closed: an unknown key is an error, and so are NaN and infinity."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Record(BaseModel):
    """One request that both models answered: one JSON line of a calibration file.

    Unknown keys are kept in `model_extra` and otherwise ignored; the reader names them in a note, because
    files of other tools carry identifiers and times, and a misspelt key must still be visible.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)

    prompt: str | list[dict[str, JsonValue]] = Field(
        description="What was asked: text, or chat messages as sent to /v1/chat/completions."
    )
    lean_quality: Fraction = Field(description="Quality of the lean model's answer, 0 to 1.")
    large_quality: Fraction = Field(description="Quality of the large model's answer, 0 to 1.")
    lean_answer: str | None = Field(default=None, description="The lean model's answer, where it is known.")
    large_answer: str | None = Field(
        default=None, description="The large model's answer; with lean_answer it allows the label-free bound."
    )
    lean_logprobs: Sequence[float] | None = Field(
        default=None, description="Log-probability of each token of the lean answer, in order."
    )
    lean_top_logprobs: Sequence[Sequence[float]] | None = Field(
        default=None, description="For each token of the lean answer the best log-probabilities, best first."
    )
    lean_finish_reason: str | None = Field(
        default=None, description="Why the lean answer ended: stop, length, …"
    )
    response_schema: dict[str, JsonValue] | None = Field(
        default=None, description="JSON schema that the request asked for (response_format json_schema)."
    )
    lean_cost: Dollars | None = Field(default=None, description="Cost of the lean answer in US dollars.")
    large_cost: Dollars | None = Field(default=None, description="Cost of the large answer in US dollars.")
    lean_latency: Seconds | None = Field(default=None, description="Seconds the lean model took.")
    large_latency: Seconds | None = Field(default=None, description="Seconds the large model took.")
    group: str | None = Field(
        default=None, description="Kind of request, for a table by group in the evaluation."
    )
    stratum: str | None = Field(
        default=None,
        description="Class label of the reference; balanced quality is the mean over these classes.",
    )
    weight: Annotated[float, Field(gt=0.0)] | None = Field(
        default=None,
        description="Weight of the record in means of quality (aggregate `mean` only); default 1.",
    )

    @field_validator("lean_logprobs")
    @classmethod
    def _logprobs_are_logs(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value and max(value) > LOGPROB_TOLERANCE:
            raise ValueError(
                f"found {max(value)}, expected natural log-probabilities, each at most 0 (not probabilities)"
            )
        return value

    @model_validator(mode="after")
    def _margins_fit_tokens(self) -> Record:
        top, tokens = self.lean_top_logprobs, self.lean_logprobs
        if top is not None and tokens is not None and len(top) != len(tokens):
            raise ValueError(
                f"lean_top_logprobs: found {len(top)} positions, expected {len(tokens)}, "
                "one for each of lean_logprobs"
            )
        return self

    @property
    def prompt_text(self) -> str:
        """The prompt as one text: the contents of its messages, one a line."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(str(message.get("content", "")) for message in self.prompt)


class Interval(_Contract):
    """A confidence interval of a figure."""

    low: float = Field(description="Lower end, in the figure's own unit.")
    high: float = Field(description="Upper end, in the figure's own unit.")
    level: Fraction = Field(default=0.95, description="Share of such intervals that hold the true figure.")
    method: str = Field(description="How it was found: bootstrap, wilson, clopper-pearson.")


class PromptScope(_Contract):
    """The shape of the prompts that a certificate speaks of, as literal text around what varies."""

    roles: Sequence[str] = Field(description="Roles of the messages in order; empty for /v1/completions.")
    prefixes: Sequence[str] = Field(description="What each message (or the one prompt) starts with.")
    suffixes: Sequence[str] = Field(description="What each message (or the one prompt) ends with.")

    @model_validator(mode="after")
    def _same_lengths(self) -> PromptScope:
        expected = len(self.roles) or 1
        if len(self.prefixes) != expected or len(self.suffixes) != expected:
            raise ValueError(f"prefixes and suffixes: expected {expected} each, one for each message")
        return self


class Scope(_Contract):
    """What a certificate is valid for. A field that is null was not stated and is not checked."""

    metric: str = Field(default="quality", description="Name of the quality that is promised.")
    aggregate: Aggregate = Field(
        default="mean",
        description="mean over requests, or balanced: the mean over classes of the class means.",
    )
    decision: Decision = Field(
        default="whole-answer",
        description="What the decision reads of an answer: all of it, or its beginning (first-32-tokens). The two are "
        "two policies, each with a certificate of its own.",
    )
    endpoint: Literal["chat", "completions", "classify", "embeddings"] | None = Field(
        default=None, description="Kind of endpoint asked."
    )
    prompt: PromptScope | None = Field(default=None, description="Literal shape of the prompts.")
    prompt_template_digest: str | None = Field(
        default=None, description="sha256 of the prompt template, to show."
    )
    chat_template_digest: str | None = Field(default=None, description="sha256 of the model's chat template.")
    data_digest: str | None = Field(default=None, description="sha256 of the records calibrated on.")
    temperature: Annotated[float, Field(ge=0.0)] | None = Field(
        default=None, description="Sampling temperature."
    )
    top_p: Fraction | None = Field(default=None, description="Nucleus sampling's mass.")
    max_tokens: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="Limit of answer tokens."
    )
    n: Annotated[int, Field(gt=0)] | None = Field(default=None, description="Answers per request.")
    response_format: Literal["json_schema"] | None = Field(
        default=None,
        description="json_schema: of requests that ask for one, and of no others. Null: of requests without any.",
    )
    engine: str | None = Field(default=None, description="Engine and version that answered.")
    dtype: str | None = Field(default=None, description="Precision of the served weights.")
    concurrency: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="Requests in flight while calibrating; log-probs vary with batching."
    )
    lean_revision: str | None = Field(default=None, description="Digest of the lean model's artifact.")
    large_revision: str | None = Field(default=None, description="Digest of the large model's artifact.")

    @property
    def hold_back(self) -> int | None:
        """How many tokens of an answer the decision reads; None: all of them."""
        return None if self.decision == "whole-answer" else int(self.decision.split("-")[1])

    @staticmethod
    def reading(hold_back: int | None) -> str:
        """Return the `decision` that reads so many tokens; None: the whole answer."""
        return "whole-answer" if hold_back is None else f"first-{hold_back}-tokens"


class LabelFreeBound(_Contract):
    """What production can watch without labels: how often an accepted answer differs from the large model's.

    For right/wrong quality the loss of mean quality is at most this probability.
    """

    estimate: Fraction = Field(
        description="Share of all requests accepted and different from the large answer."
    )
    upper: Fraction = Field(description="Its exact (Clopper-Pearson) upper bound at `confidence`.")
    confidence: Fraction = Field(description="Confidence of the upper bound.")
    n: int = Field(ge=0, description="Records with both answers known.")
    part: str = Field(description="The part it was counted on: report, or the records evaluated.")
    shadow_accepted: int = Field(
        ge=0,
        description="Accepted requests that must be shadowed to the large model to see a change of 3 points.",
    )


class PartSizes(_Contract):
    """How many records each part held."""

    fit: int = Field(ge=0, description="Chose signals, predictor, order of thresholds and size of bets.")
    certify: int = Field(ge=0, description="Tested the thresholds; nothing was chosen with it before.")
    report: int = Field(ge=0, description="Only measured.")


class Certificate(_Contract):
    """The promise and the evidence: mean quality routed ≥ retain · mean quality of the large model.

    It speaks of means on one distribution of requests (the scope's), wrong with chance at most 1 -
    confidence; it says nothing of single answers.
    """

    retain: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        description="Promised share of the large quality."
    )
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(description="1 - the risk that it is broken.")
    method: Method = Field(default="ltt-betting", description="Learn-then-Test with this p-value.")
    n: int = Field(ge=0, description="Records of the certify part.")
    p_value: Fraction = Field(
        description="p-value at the chosen threshold, or at the first one where none passed."
    )
    certified: bool = Field(
        description="True when a policy cheaper than all-large was shown to keep the promise."
    )
    outcome: Outcome = Field(description="The case by name.")
    message: str = Field(description="One sentence for people: what was shown, or what to do.")
    threshold_index: int | None = Field(
        default=None, description="Index of the chosen step; null: all-large."
    )
    steps: int = Field(default=0, ge=0, description="Steps in the walk's order.")
    tested: int = Field(default=0, ge=0, description="Steps tested until the first that did not pass.")
    start: int = Field(default=0, ge=0, description="Step the fit part chose to start at.")
    looks: int = Field(
        default=1, ge=1, description="Uses planned of this certify part; the risk is divided by it."
    )
    blocks: int | None = Field(
        default=None, description="Balanced only: records of the rarest class, which limits the evidence."
    )
    parts: PartSizes = Field(description="Sizes of the three parts.")
    needed: int | None = Field(
        default=None,
        description="How many more certify records would be needed, as it looks; null: none, or unknown.",
    )
    quality_large: Fraction | None = Field(
        default=None, description="Absolute quality of the large model on the certify part."
    )
    label_free: LabelFreeBound | None = Field(
        default=None, description="The bound that production can watch."
    )


class SignalSpec(_Contract):
    """One signal as used by a predictor: its registered name and what its fitting learnt."""

    name: str = Field(description="Name in the signal registry.")
    params: dict[str, JsonValue] = Field(default_factory=dict, description="Fitted parameters, plain JSON.")


class LinearHead(_Contract):
    """Linear score: intercept + Σ coefficient · standardised feature."""

    intercept: float = Field(description="Score of the mean record.")
    coefficients: Sequence[float] = Field(description="One for each feature, in the signals' order.")


class Predictor(_Contract):
    """Calibrated confidence that accepting the lean answer does no harm: coefficients only, never a pickle.

    `fine`: sigmoid of one head. `benefit`: two heads give P(lean right) and P(large right), and the sigmoid
    of link_intercept + link_slope · (their difference) is the confidence.
    """

    kind: Literal["fine", "benefit"] = Field(description="What the heads predict.")
    name: str = Field(description="Name of the candidate that was chosen.")
    signals: Sequence[SignalSpec] = Field(description="Signals, in the order of their features.")
    feature_names: Sequence[str] = Field(description="Name of each feature.")
    means: Sequence[float] = Field(description="Mean of each feature on the fit part.")
    scales: Sequence[float] = Field(description="Scale of each feature on the fit part; never 0.")
    heads: Sequence[LinearHead] = Field(description="One head (fine) or two: lean, large (benefit).")
    link_slope: float = Field(default=1.0, ge=0.0, description="`benefit` only.")
    link_intercept: float = Field(default=0.0, description="`benefit` only.")

    @model_validator(mode="after")
    def _sizes_agree(self) -> Predictor:
        size = len(self.feature_names)
        lengths = {len(self.means), len(self.scales), *(len(head.coefficients) for head in self.heads)}
        if lengths != {size}:
            raise ValueError(
                f"means, scales and coefficients: found lengths {sorted(lengths)}, expected {size}"
            )
        if len(self.heads) != (1 if self.kind == "fine" else 2):
            raise ValueError(
                f"heads: found {len(self.heads)} for kind {self.kind}, expected 1 (fine) or 2 (benefit)"
            )
        if any(scale <= 0 for scale in self.scales):
            raise ValueError("scales: expected every one above 0")
        return self

    @cached_property
    def folded(self) -> tuple[tuple[float, tuple[float, ...]], ...]:
        """Each head as (intercept, weights) on the raw features: standardisation multiplied out, once."""
        found = []
        for head in self.heads:
            weights = tuple(c / scale for c, scale in zip(head.coefficients, self.scales, strict=True))
            shift = sum(weight * mean for weight, mean in zip(weights, self.means, strict=True))
            found.append((head.intercept - shift, weights))
        return tuple(found)


class CurvePoint(_Contract):
    """One point of the quality-cost curve."""

    threshold: Fraction = Field(description="Accept the lean answer at this confidence or above.")
    large_share: Fraction = Field(description="Share of requests that the large model answers.")
    quality: Fraction = Field(description="Quality of the routed pair.")
    cost: Dollars | None = Field(
        default=None, description="US dollars per request; null where costs are unknown."
    )
    p_value: Fraction | None = Field(
        default=None, description="p-value on the certify part where it was tested."
    )


class Policy(_Contract):
    """What the router decides with. `digest` is the sha256 of all other fields."""

    version: Literal["1"] = Field(default="1", description="Version of this format.")
    kind: PolicyKind = Field(
        description="all-large, all-lean, or cascade: lean first, large below the threshold."
    )
    predictor: Predictor | None = Field(default=None, description="Needed by a cascade.")
    threshold: Fraction = Field(description="Accept the lean answer at this confidence or above.")
    scope: Scope = Field(default_factory=Scope, description="What the certificate is valid for.")
    certificate: Certificate = Field(description="The promise and its evidence.")
    expected_large_share: Fraction = Field(description="Large share on the report part.")
    curve: Sequence[CurvePoint] = Field(
        default=(), description="Quality-cost curve on the report part, to show."
    )
    seed: int = Field(
        default=0, description="Seed of the split and of every draw; same records, same policy."
    )
    digest: str = Field(
        default="", description="sha256 of the rest, as `sha256:<hex>`; filled by `sealed()`."
    )

    @model_validator(mode="after")
    def _cascade_is_whole(self) -> Policy:
        if self.kind == "cascade":
            if self.predictor is None:
                raise ValueError("predictor: missing, expected one because kind is cascade")
            if self.threshold <= 0.0:
                raise ValueError(
                    "threshold: found 0, expected above 0 for a cascade (write kind all-lean instead)"
                )
        if self.digest and self.digest != self.computed_digest():
            raise ValueError(
                f"digest: found {self.digest}, expected {self.computed_digest()}: the policy was changed "
                "after it was certified; calibrate again"
            )
        return self

    def computed_digest(self) -> str:
        """sha256 of the policy's canonical JSON without its digest, as `sha256:<hex>`."""
        content = self.model_dump(mode="json", exclude={"digest"})
        # Policies of before these have no such keys, and keep their digests.
        for part, later in ((content, "under_pressure"), (content["scope"], "response_format")):
            if part.get(later) is None:
                part.pop(later, None)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """The digest it carries, or the one that it has."""
        return self.digest or self.computed_digest()

    def sealed(self) -> Policy:
        """The same policy with its digest filled in."""
        return self.model_copy(update={"digest": self.computed_digest()})


class Baseline(_Contract):
    """A trivial rule's figures on the same records."""

    large_share: Fraction = Field(description="Share of requests that the large model answers.")
    quality: Fraction = Field(description="Quality of what is answered.")
    cost: Dollars | None = Field(
        default=None, description="US dollars per request; null where costs are unknown."
    )


class Baselines(_Contract):
    """What any router must be held against."""

    always_lean: Baseline = Field(description="Only the lean model.")
    always_large: Baseline = Field(description="Only the large model.")
    random: Baseline = Field(
        description="The large model by lot, at the policy's large share, called directly."
    )
    oracle: Baseline = Field(description="The large model exactly where it is better, called directly.")


class GroupFigures(_Contract):
    """One group's figures; the promise is for the mean over all groups, not for each."""

    n: int = Field(ge=1, description="Records of the group.")
    large_share: Fraction = Field(description="Share of its requests that the large model answers.")
    quality: Fraction = Field(description="Quality of the routed pair (plain mean).")
    quality_large: Fraction = Field(description="Quality of the large model (plain mean).")
    enough: bool = Field(
        description="False below 300 records: too few to promise this group anything of its own."
    )


class PolicyEvaluation(_Contract):
    """A policy's figures on records it has not seen."""

    large_share: Fraction = Field(description="Share of requests that the large model answers.")
    quality: Fraction = Field(description="Quality of the routed pair.")
    cost: Dollars | None = Field(
        default=None, description="US dollars per request, the lean call included; null where unknown."
    )
    cpt50: Fraction | None = Field(
        default=None, description="Large share that recovers 50% of the gap; null: see reasons."
    )
    cpt80: Fraction | None = Field(
        default=None, description="Large share that recovers 80% of the gap; null: see reasons."
    )
    apgr: float | None = Field(
        default=None, description="Mean share of the gap recovered over all large shares; random is 0.5."
    )
    aiq: float | None = Field(
        default=None, description="Area under the hull of (cost, quality) over the cost range, as a quality."
    )
    certificate: Certificate = Field(description="The policy's certificate.")
    baselines: Baselines = Field(description="always_lean, always_large, random, oracle.")
    kind: PolicyKind = Field(description="Kind of the policy.")
    n: int = Field(ge=1, description="Records evaluated.")
    quality_retained: float | None = Field(
        default=None, description="quality / large quality; null where the large one is 0."
    )
    promise_held: bool = Field(
        description="The point estimate: quality ≥ retain · large quality on these records."
    )
    cost_basis: Literal["usd", "large-share"] = Field(
        description="Axis of aiq: usd, or the large share where records carry no costs."
    )
    cost_all_large: Dollars | None = Field(
        default=None, description="US dollars per request had all gone large."
    )
    intervals: dict[str, Interval] = Field(
        default_factory=dict, description="95% intervals of the figures, by key."
    )
    reasons: dict[str, str] = Field(default_factory=dict, description="Why a figure is null, by key.")
    notes: Sequence[str] = Field(default=(), description="What a reader should know.")
    groups: dict[str, GroupFigures] = Field(default_factory=dict, description="By the records' group.")
    label_free: LabelFreeBound | None = Field(
        default=None, description="Accepted and different, on these records."
    )
    latency: float | None = Field(default=None, description="Mean seconds per request; null where unknown.")
    calibration_error: float | None = Field(
        default=None,
        description="Mean |confidence - share that was fine| over ten equal bins (ECE); 0 is perfect.",
    )
    curve: Sequence[CurvePoint] = Field(default=(), description="Quality-cost curve on these records.")
