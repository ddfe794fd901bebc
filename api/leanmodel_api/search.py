"""Right-sizing: what a lean model may cost and must keep, in place of the steps that make it; and what was found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import DecimalString, Fraction, Latency, Name, Part, Quantity
from .figure import Estimate
from .steps import Step, TrainingFields


class SearchDevice(Part):
    """A machine without GPU on which one replica of the lean model must fit."""

    memory: Quantity = Field(
        description="Memory for one replica, such as 4Gi: the engine itself, spec.serving.lean.kvCache (task text-generation), the weights as the engine holds them and what it computes with. Router, Ray's own processes and the system come on top."
    )


class SearchBudget(Part):
    """What the lean model may take at most; where several are given, all hold."""

    bytes: Quantity | None = Field(None, description="Weights as stored for serving, such as 90Mi.")
    size_ratio: Fraction | None = Field(
        None, description='Weights as a share of the large model\'s, as stored for serving, such as "0.6".'
    )
    latency: Latency | None = Field(
        None,
        description="Time of one request, asked alone, at the 95th percentile, such as 20ms. Measured on the validation part's texts in the engine, from the text to its logits, without HTTP. Task text-classification.",
    )
    usd_per_thousand_requests: DecimalString | None = Field(
        None,
        description="US dollars per 1,000 requests: spec.pricing.lean.usdPerHour by the requests per second of full batches, measured as latency is. Task text-classification.",
    )
    device: SearchDevice | None = Field(
        None, description="A machine without GPU on which one replica must fit, decided before any work."
    )


class SearchPromise(Part):
    """What the lean model alone must keep, on the validation part: the proof's parts stay unseen."""

    retain: Fraction = Field(
        "0.97",
        description="Share of the large model's quality: balanced accuracy where the data set has choices, else the share of an answer's tokens. Default 0.97.",
    )
    data_set: Name | None = Field(
        None, description="Data set whose validation part is asked. Default: the only one."
    )
    use: Literal["Estimate", "Bound"] = Field(
        "Estimate",
        description="Hold the estimate, or the lower end of its 95% interval, against retain. Default Estimate.",
    )


class Search(Part):
    """Find the cheapest lean model that keeps a promise: candidates are trained a little, the best of them longer."""

    budget: SearchBudget = Field(description="Upper bounds: at least one.")
    promise: SearchPromise = Field(default_factory=SearchPromise, description="What must be kept.")
    training: TrainingFields = Field(
        default_factory=TrainingFields,
        description="How a candidate is distilled or healed when it is trained to the end. Default: as in a Distill step.",
    )
    max_candidates: Annotated[int, Field(ge=1, le=100)] = Field(
        16, description="Candidates at most, spread over the bytes that fit the budget. Default 16."
    )


Outcome = Literal["Chosen", "Passed", "Failed", "Stopped", "Dearer", "OverBudget", "Broken"]


class Tried(Part):
    """One candidate, and how far it came."""

    name: str = Field(description="Its recipe in short, such as depth-10-w8a8.")
    steps: list[Step] = Field(description="Its recipe, trained to the end: what lean.steps would say.")
    estimated_bytes: int = Field(description="Bytes as estimated before: none above the budget is run.")
    bytes: int | None = Field(None, description="Bytes as stored for serving; none where it was not made.")
    rung: int = Field(0, description="Rungs that it was measured on: 0 is none.")
    trained: str = Field("", description="Share of the training at the last of them, such as 1/16.")
    latency_ms: Estimate | None = Field(
        None,
        description="Milliseconds of one request alone, 95th percentile; none where nothing asks for it.",
    )
    requests_per_second: Estimate | None = Field(None, description="With full batches; none as above.")
    usd_per_thousand_requests: Estimate | None = Field(
        None, description="By the price per hour; none without one."
    )
    memory_bytes: int | None = Field(
        None, description="What a replica takes, as estimated; none where the budget names no device."
    )
    quality: Estimate | None = Field(None, description="On the validation part, at the last of them.")
    retained: Estimate | None = Field(None, description="By the large model's.")
    seconds: float = Field(
        0, description="What its steps took, on all rungs; one that several share counts for the first."
    )
    outcome: Outcome = Field(
        description="Chosen; Passed, but another is cheaper; Failed when trained to the end; Stopped before; Dearer than one that passes; OverBudget as made or measured; Broken by an error."
    )
    note: str = Field("", description="Why it broke, or what is above the budget.")


class StepEffect(Part):
    """Quality before and after one step of the chosen recipe."""

    type: str
    detail: str = ""
    before: Estimate
    after: Estimate


class LayerEffect(Part):
    """What quantising one layer alone does to the loss."""

    layer: int = Field(description="From 0.")
    loss: float = Field(description="Loss per answer token with this layer alone on its grid.")
    rise: float = Field(description="By how much that is more than with no layer quantised.")


class Sensitivity(Part):
    """What each step of the chosen recipe cost, and how much each layer minds being quantised."""

    steps: list[StepEffect] = Field(default_factory=list)
    layers: list[LayerEffect] = Field(
        default_factory=list, description="Empty where nothing quantises layers one by one."
    )
    layer_rows: int = Field(0, description="Rows of the validation part behind the layers.")
    scheme: str = Field("", description="What the layers are quantised to.")


class SearchFound(Part):
    """What a search measured: the frontier, and how the chosen one came about."""

    data_set: str
    metric: str = Field(description="BalancedAccuracy or TokenAccuracy.")
    rows: int = Field(description="Rows of the validation part.")
    budget: SearchBudget = Field(default_factory=SearchBudget, description="As the manifest has it.")
    budget_bytes: int = Field(description="Bytes at most; the large model's where the budget names none.")
    threads: int | None = Field(
        None, description="Threads that requests were measured with; none where nothing asks for it."
    )
    served_threads: int | None = Field(None, description="Threads that a replica will have.")
    retain: float
    use: Literal["Estimate", "Bound"]
    large_bytes: int
    large: Estimate = Field(description="The large model's quality.")
    chosen: str = Field("", description="Name of the candidate.")
    proposed: int = Field(description="Recipes that the model's shape allows.")
    over_budget: int = Field(description="Of them, those above the budget by their estimates.")
    frontier: list[Tried] = Field(description="Candidates from the fewest bytes to the most.")
    sensitivity: Sensitivity = Field(default_factory=Sensitivity)
    seconds: float = Field(0, description="Wall time of the search in this run.")
