"""The proof: ask, judge, calibrate, certify, hold gates, decide."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leanmodel_api.base import number
from leanmodel_api.classification import EMBEDDING
from leanmodel_api.errors import InputError, LeanModelError, one
from leanmodel_api.parts import Example
from leanmodel_api.plan import ProvePlan
from leanmodel_api.policy import Record
from leanmodel_api.report import Estimate, ModelFigures, ProveReport
from leanmodel_routing.evaluate import evaluate_policy
from leanmodel_store import datasets

from .asked import Asked, ask_both, phases
from .baselines import TEXT_MODEL, Baseline, judged_baseline, train_baselines
from .calibrated import Calibrated, calibrated
from .gates import hold
from .intervals import exact
from .judged import ASKED_PARTS, different, judged_parts, model_figures, routes, saving
from .looks import count_look
from .metrics import METRICS, Task, compare, promised
from .notes import environment
from .progress import Progress
from .records import PartAnswers, records
from .scope import scope_of
from .speed import Comparison
from .verdict import decide, overall, second_words


@dataclass(frozen=True)
class Wiring:
    """Where a Job finds things; none of it changes what is proven.

    Attributes:
        store: root of the store; answers and looks are kept beside the artifacts.
        endpoint: the router's address.
        token: what its internal route wants.
    """

    store: Path
    endpoint: str
    token: str


def metric_of(plan: ProvePlan) -> str:
    """Return the proof's metric: the manifest's, else what the data set has makes it."""
    if plan.evaluation.metric is not None:
        return plan.evaluation.metric
    data = plan.data_set
    if plan.task == EMBEDDING:
        return "NeighborAgreement"
    return "BalancedAccuracy" if data.choices else "TokenF1" if data.answer is not None else "Agreement"


def check(plan: ProvePlan, examples: dict[str, list[Example]]) -> None:
    """Refuse what cannot be proven.

    Raises:
        InputError: sampling is not greedy, or a part that the proof needs is empty.
    """
    temperature = plan.evaluation.sampling.temperature
    if number(temperature) != 0:
        raise one(
            InputError, "spec.evaluation.sampling.temperature", f"found {temperature}",
            "write 0: a sampled model disagrees with itself, so its quality cannot be compared answer by answer",
        )  # fmt: skip
    for part in ("fit", "certify", "report"):
        if not examples[part]:
            raise one(
                InputError, f"spec.dataSets[{plan.data_set.name}].split.{part}", "the part is empty",
                "give it a share, such as 0.1: the proof needs fit, certify and report",
            )  # fmt: skip


def prove(
    plan: ProvePlan, wiring: Wiring, data: datasets.Parts, progress: Progress | None = None
) -> ProveReport:
    """Return the proof of a lean revision.

    Args:
        data: the data set, split.

    Raises:
        InputError: the plan or the data cannot be proven, the endpoint does not let us in, or a gate's
            figure is not known.
        EndpointError: the endpoint stopped answering; what it answered is kept.
    """
    metric = metric_of(plan)
    examples = {name: list(getattr(data, name)) for name in ASKED_PARTS}
    check(plan, examples)
    scored = metric == "Perplexity" or any(gate.metric == "Perplexity" for gate in plan.evaluation.gates)
    everything = [example for name in ASKED_PARTS for example in examples[name]]
    progress = progress or Progress(phases(plan, len(everything), scored))
    asked = _ask(plan, wiring, everything, [*data.train, *data.validation], scored, progress)

    progress.start("calibrate", 1, "the router's rule and its certificate")
    task = Task.of(plan.data_set, data.label_counts, embeds=plan.task == EMBEDDING)
    if not METRICS[metric].applies(task, scored):
        raise one(
            InputError, "spec.evaluation.metric", f"found {metric}, which data set {plan.data_set.name!r} cannot give",
            "write another metric, or give the data set choices or an answer",
        )  # fmt: skip
    parts = judged_parts(plan, examples, asked, task)
    look = count_look(wiring.store / "looks", data.digest, _proof_name(plan, metric))
    listed = {
        name: records(part, promised(metric), promised(metric) == "BalancedAccuracy")
        for name, part in parts.items()
    }
    scope = scope_of(plan, promised(metric), data.digest, everything)
    result = calibrated(plan, scope, listed, look)
    baselines = train_baselines(data.train, data.validation, task, metric, plan.seed)
    progress.finish("calibrate")

    progress.start("report", 1)
    report = _report(plan, metric, task, data, parts, listed, result, baselines, asked, look)
    progress.finish("report", report.verdict)
    return report


def _ask(
    plan: ProvePlan, wiring: Wiring, everything: Sequence[Example], unasked: Sequence[Example], scored: bool,
    progress: Progress,
) -> Asked:  # fmt: skip
    try:
        return asyncio.run(
            ask_both(
                plan,
                wiring.endpoint,
                wiring.token,
                wiring.store / "answers",
                everything,
                unasked,
                scored,
                progress,
            )
        )
    except ExceptionGroup as group:
        # The workers of a group fail together; the first of our own errors says what is wrong.
        mine = group.subgroup(LeanModelError)
        raise (_first(mine) if mine is not None else group) from group


def _first(group: ExceptionGroup[LeanModelError]) -> LeanModelError:
    error: BaseException = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, LeanModelError)
    return error


def _proof_name(plan: ProvePlan, metric: str) -> str:
    promise = plan.routing.promise
    pair = f"{plan.lean.artifact} against {plan.large.artifact}"
    strategy = "" if plan.routing.strategy == "Cascade" else f" {plan.routing.strategy}"
    second = plan.routing.under_pressure
    lower = f" under pressure {second.retain}" if second is not None else ""
    return f"{pair}, {metric} {promise.retain} {promise.risk} {plan.engine}{strategy}{lower}"


def _report(
    plan: ProvePlan, metric: str, task: Task, data: datasets.Parts, parts: dict[str, PartAnswers],
    listed: dict[str, list[Record]], result: Calibrated, baselines: Sequence[Baseline], asked: Asked, look: int,
) -> ProveReport:  # fmt: skip
    ruler, policy, part = METRICS[metric], result.policy, parts["report"]
    routed = routes(policy, listed["report"])
    escalated = routed.escalated
    pair = part.judged_lean.where(part.judged_large, escalated)
    retained = compare(ruler, pair, part.judged_large, task, plan.seed, ratio=True)
    lean_retained = compare(ruler, part.judged_lean, part.judged_large, task, plan.seed, ratio=True)
    avoided = saving(part, routed, asked.speed, plan.seed)
    models = model_figures(part, escalated, baselines, task, ruler, plan.seed)
    held = None
    if len(parts["test"]):
        models += model_figures(
            parts["test"], routes(policy, listed["test"]).escalated, baselines, task, ruler, plan.seed
        )
        held = evaluate_policy(policy, listed["test"], part="test").promise_held
    size = exact(plan.lean.bytes / plan.large.bytes)
    over = _over_baseline(baselines, part, task, metric, plan.seed)
    found = gate_figures(models, metric, size, asked.speed, retained, lean_retained, avoided, over)
    gates = hold(plan.evaluation.gates, found)
    verdict, reason = decide(gates, overall(policy), policy.certificate, plan.routing, second_words(policy))
    examples, differing = different(part, routed, metric)
    return ProveReport(
        name=plan.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        large=plan.large,
        lean=plan.lean,
        metric=metric,
        parts=data.counts(),
        verdict=verdict,
        reason=reason,
        gates=gates,
        models=models,
        size_ratio=size,
        throughput_ratio=asked.speed.ratio,
        quality_retained=retained,
        lean_quality_retained=lean_retained,
        saving=avoided,
        speed={"large": asked.speed.large, "lean": asked.speed.lean},
        promise_held_on_test=held,
        policy=policy,
        evaluation=result.evaluation,
        curve=[_point(point.model_dump(exclude_none=True)) for point in result.evaluation.curve],
        steps=list(plan.steps),
        search=plan.search,
        examples=examples,
        environment=environment(
            plan, metric, data, parts, baselines, asked, look, differing, over, result.notes
        ),
    )


def _point(found: dict[str, float]) -> dict[str, float]:
    names = {"large_share": "largeShare", "p_value": "pValue"}
    return {names.get(name, name): value for name, value in found.items()}


def gate_figures(
    models: Sequence[ModelFigures], metric: str, size: Estimate, speed: Comparison, retained: Estimate,
    lean_retained: Estimate, avoided: Estimate | None, over: Estimate | None,
) -> dict[str, Estimate | None]:  # fmt: skip
    """Return the figures that gates are held against, by gate metric; None where one was not measured."""
    report = {model.name: model.figures for model in models if model.part == "report"}
    memory = None
    if speed.large.memory_bytes and speed.lean.memory_bytes:
        memory = exact(speed.lean.memory_bytes / speed.large.memory_bytes)
    return {
        "LeanQuality": report["lean"].get(metric),
        "LargeQuality": report["large"].get(metric),
        "LeanQualityRetained": lean_retained if lean_retained.n else None,
        "PairQualityRetained": retained if retained.n else None,
        "SizeRatio": size,
        "ThroughputRatio": speed.ratio,
        "MemoryRatio": memory,
        "Saving": avoided,
        "LeanOverBaseline": over,
        "Perplexity": report["lean"].get("Perplexity"),
    }


def _over_baseline(
    baselines: Sequence[Baseline], part: PartAnswers, task: Task, metric: str, seed: int
) -> Estimate | None:
    """Return the lean model's figure minus that of TF-IDF with logistic regression; None without that."""
    model = next((item for item in baselines if item.name == TEXT_MODEL), None)
    ruler = METRICS[metric]
    if model is None or metric not in ("BalancedAccuracy", "ChoiceAccuracy", "F1", "ExactMatch"):
        return None
    return compare(
        ruler, part.judged_lean, judged_baseline(model, part.examples, task), task, seed, ratio=False
    )
