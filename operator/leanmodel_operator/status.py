"""From what is observed to the status that a user reads. Pure: time comes in as an argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from leanmodel_api.base import fmt
from leanmodel_api.plan import CompressResult, RevisionRef
from leanmodel_api.report import Estimate, ProveReport
from leanmodel_api.resource import LeanModel
from leanmodel_api.router import RouterSettings
from leanmodel_api.status import (
    Condition,
    ConditionType,
    CostSummary,
    Interval,
    Progress,
    ReportSummary,
    Revision,
    Status,
)

from .jobs import revision

AS_DECLARED, PROMISE_BROKEN = "AsDeclared", "PromiseBroken"
"""Reasons of Degraded while nothing has failed."""


@dataclass(frozen=True)
class Observed:
    """What is true of one LeanModel now.

    Attributes:
        large, lean: results of the compress Jobs, when they have ended well.
        large_serves, lean_serves: whether a real generation through each revision has succeeded, now.
        report: the proof, when it has ended.
        failure: (step, message) of the Job or application that failed, in the words of its last error.
        routed: whether the router confirmed that it runs with the proof's policy.
        stopped: whether the user ended it.
        working: whether a Job is under way; one that began before spec.suspend goes on.
        answering: whether anything answers requests now, of whatever revision.
        alarms: words of the monitors by which the router finds its promise broken, and sends everything large.
        silent: why revisions that are up do not answer, in the words of their last refusals.
        stable: the lean revision of before, which keeps its traffic while this generation's is made.
    """

    large: CompressResult | None = None
    lean: CompressResult | None = None
    large_serves: bool = False
    lean_serves: bool = False
    report: ProveReport | None = None
    failure: tuple[str, str] | None = None
    routed: bool = False
    stopped: bool = False
    working: bool = False
    answering: bool = False
    alarms: tuple[str, ...] = ()
    silent: str = ""
    stable: RevisionRef | None = None
    progress: Progress | None = None
    cost: CostSummary | None = None
    url: str | None = None
    metrics_url: str | None = None
    report_url: str | None = None


State = Literal["True", "False", "Unknown"]


def lean_admitted(report: ProveReport | None) -> bool:
    """Return whether a proof lets the lean model take traffic."""
    return report is not None and report.verdict in ("Routed", "LeanTakesAll")


SUSPENDED = "spec.suspend is true: no Job is started; write false to go on"
NEED_A_JOB = ("PreparingLarge", "Compressing", "Proving")
"""Phases that a Job has to end."""


def phase(model: LeanModel, seen: Observed) -> str:
    """Return where the loop stands, in a word."""
    found = _phase(model, seen)
    waits = model.spec.suspend and not seen.working and found in NEED_A_JOB
    return "Suspended" if waits else found


def _phase(model: LeanModel, seen: Observed) -> str:
    if seen.stopped:
        return "Stopped"
    if seen.failure and not (seen.large_serves or seen.answering):
        return "Failed"
    fallen_back = "ServingStable" if seen.stable else "ServingLarge"
    if seen.failure:
        return fallen_back
    if seen.large is None:
        return "PreparingLarge"
    if not seen.large_serves:
        return "StartingLarge"
    if model.spec.lean is None:
        return "Ready"
    if seen.lean is None:
        return "Compressing"
    if seen.report is None:
        return "Proving" if seen.lean_serves else "StartingLean"
    if not lean_admitted(seen.report):
        return fallen_back
    return "Ready" if seen.routed else "Routing"


def compute(model: LeanModel, seen: Observed, now: str, previous: Status | None = None) -> Status:
    """Return the status.

    Args:
        now: the time (RFC 3339), used for conditions that changed.
        previous: the status before, whose transition times are kept where nothing changed.
    """
    generation = model.metadata.generation
    before = {c.type: c for c in previous.conditions} if previous else {}
    conditions = []
    for kind, state, reason, message in _statements(model, seen):
        old = before.get(kind)
        since = old.last_transition_time if old and old.status == state else now
        conditions.append(
            Condition(
                type=kind,
                status=state,
                reason=reason,
                message=message,
                observed_generation=generation,
                last_transition_time=since,
            )  # fmt: skip
        )
    admitted = lean_admitted(seen.report) and (seen.routed or seen.stable is None)
    stable = Revision(**seen.stable.model_dump()) if seen.stable else None
    return Status(
        observed_generation=generation, conditions=conditions, phase=phase(model, seen), progress=seen.progress,
        large_revision=_revision(seen.large), stable_revision=_revision(seen.lean) if admitted else stable,
        candidate_revision=None if admitted else _revision(seen.lean),
        report=summary(seen.report, seen.report_url) if seen.report else None,
        cost=seen.cost, url=seen.url, metrics_url=seen.metrics_url,
    )  # fmt: skip


def _revision(result: CompressResult | None) -> Revision | None:
    if result is None:
        return None
    ref = revision(result)
    return Revision(name=ref.name, artifact=ref.artifact, bytes=ref.bytes)


def _statements(model: LeanModel, seen: Observed) -> list[tuple[ConditionType, State, str, str]]:
    """Return the conditions that apply, each with what to do."""
    failed_step, failure = seen.failure or ("", "")
    rows: list[tuple[ConditionType, State, str, str]] = [
        ("Accepted", "True", "Valid", "the manifest is valid")
    ]
    wants_lean = model.spec.lean is not None
    if wants_lean:
        if seen.lean is not None:
            rows.append(
                (
                    "Compressed",
                    "True",
                    "Finished",
                    f"the lean model is {revision(seen.lean).name}, {seen.lean.bytes} bytes",
                )
            )
        elif failed_step.startswith("compress"):
            rows.append(("Compressed", "False", "Failed", failure))
        else:
            rows.append(("Compressed", "False", "Working", "the lean model is being made"))
        rows.append(_proven(seen, failed_step, failure))
    rows.append(
        (
            "Serving",
            "True",
            "Answering",
            "requests are answered" + ("" if seen.routed or seen.stable else " by the large model"),
        )
        if seen.large_serves or seen.answering
        else (
            "Serving",
            "False",
            "Starting" if not seen.failure else "Failed",
            failure or f"no model answers yet{f': {seen.silent}' if seen.silent else ''}",
        )
    )
    done = phase(model, seen)
    settled = done in ("Ready", "ServingLarge", "ServingStable", "Failed", "Stopped", "Suspended")
    rows.append(
        (
            "Progressing",
            "False" if settled else "True",
            done,
            SUSPENDED
            if done == "Suspended"
            else "nothing is under way"
            if settled
            else "see status.progress",
        )
    )
    gate = seen.report is not None and not lean_admitted(seen.report)
    reason = seen.report.reason if seen.report is not None and gate else failure
    rows.append(
        ("Degraded", "True", "GateFailed" if gate else "Failed", reason)
        if gate or seen.failure
        else ("Degraded", "True", PROMISE_BROKEN, _broken(seen.alarms))
        if seen.alarms
        else ("Degraded", "False", AS_DECLARED, "")
    )
    rows.append(
        ("Ready", "True", "Ready", "this generation is fully out")
        if done == "Ready"
        else (
            "Ready",
            "False",
            done,
            reason or (SUSPENDED if done == "Suspended" else "this generation is not fully out yet"),
        )
    )
    return rows


def alarm_words(router: RouterSettings | None) -> tuple[str, ...]:
    """Return what the router's settings record as found broken, in words."""
    found = router.broken if router is not None else None
    return tuple(f"{name}: {words}" for name, words in sorted(found.alarms.items())) if found else ()


def _broken(alarms: tuple[str, ...]) -> str:
    return (
        f"the router sends everything to the large model, since {'; '.join(alarms)}: put records like today's into "
        "spec.dataSets, which proves anew"
    )


def _proven(seen: Observed, failed_step: str, failure: str) -> tuple[ConditionType, State, str, str]:
    if seen.report is None:
        if failed_step.startswith("prove"):
            return "Proven", "False", "Failed", failure
        return "Proven", "Unknown", "NotYet", "the proof has not ended"
    return (
        "Proven",
        "True" if lean_admitted(seen.report) else "False",
        seen.report.verdict,
        seen.report.reason,
    )


def summary(report: ProveReport, url: str | None) -> ReportSummary:
    """Return the part of a proof that goes into the status."""
    by_name = {(m.name, m.part): m for m in report.models}
    metric = report.metric

    def figure(name: str) -> str | None:
        model = by_name.get((name, "report"))
        return fmt(model.figures[metric].value) if model and metric in model.figures else None

    return ReportSummary(
        size_ratio=fmt(report.size_ratio.value), size_ratio_interval=_interval(report.size_ratio),
        throughput_ratio=fmt(report.throughput_ratio.value, 2), throughput_ratio_interval=_interval(report.throughput_ratio, 2),
        quality_retained=fmt(report.quality_retained.value), quality_retained_interval=_interval(report.quality_retained),
        lean_quality=figure("lean"), large_quality=figure("large"), metric=metric,
        large_share=fmt(report.evaluation.large_share),
        saving=fmt(report.saving.value) if report.saving else None,
        certified=report.evaluation.certificate.certified, verdict=report.verdict, url=url,
    )  # fmt: skip


def _interval(estimate: Estimate, digits: int = 4) -> Interval:
    return Interval(low=fmt(estimate.low, digits), high=fmt(estimate.high, digits))
