"""The status of a LeanModel in the cluster: the shared loop's, with what only a cluster can tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from leanmodel_api.errors import Issue
from leanmodel_api.resource import LeanModel
from leanmodel_api.router import RouterSettings
from leanmodel_api.status import Condition, Progress, Status

from .. import status as loop
from . import names
from .candidate import Candidate, service_port
from .observed import Observed
from .trouble import VOLUME_PENDING, Trouble

TOLD = ("Accepted", "Compressed", "Proven", "Serving", "Degraded", "Ready")
"""Conditions whose changes become events."""

_STAGES = ("compress-large", "serve-large", "compress-lean", "serve-lean", "prove", "route")
_SHARE = {
    "compress-large": 20,
    "serve-large": 15,
    "compress-lean": 30,
    "serve-lean": 10,
    "prove": 24,
    "route": 1,
}
"""Per cent of the whole that each stage is counted as: rough, and the same for everybody."""
_PHASE_STAGE = {
    "PreparingLarge": "compress-large", "StartingLarge": "serve-large", "Compressing": "compress-lean",
    "StartingLean": "serve-lean", "Proving": "prove", "Routing": "route",
}  # fmt: skip
_ABOUT = {
    "Compressed": ("compress-large", "compress-lean"),
    "Proven": ("prove", "serve-lean"),
    "Serving": ("serve-large", "serve"),
}


@dataclass(frozen=True)
class Shown:
    """All that a status is made of."""

    model: LeanModel
    seen: Observed
    found: Candidate
    observed: loop.Observed
    following: RouterSettings | None
    settled: bool
    troubles: Sequence[Trouble]
    held: Sequence[str]


def status(shown: Shown, now: str, before: Status | None) -> dict[str, Any]:
    """Return the status as an object.

    Args:
        now: the time (RFC 3339), for conditions that change.
        before: the status that stands, whose times are kept where nothing changed.
    """
    model, seen = shown.model, shown.seen
    host = f"{names.rayservice(model.metadata.name)}.{model.metadata.namespace}.svc"
    where = f"http://{host}:{service_port(model, seen.serve)}" if shown.following is not None else None
    proof = shown.found.proof
    observed = replace(
        shown.observed, cost=seen.facts.cost or (before.cost if before else None),
        alarms=loop.alarm_words(shown.following),
        url=f"{where}/v1" if where else None, report_url=f"{where}/internal/reports/{proof}" if where and proof else None,
        progress=_progress(shown),
    )  # fmt: skip
    made = loop.compute(model, observed, now, before)
    if shown.found.failure is not None:
        made = _with_reason(made, shown.found.failure, now, before)
    for trouble in shown.troubles:
        made = _with_trouble(made, trouble, now, before)
    if shown.held:
        made = _noted(made, "Progressing", " ".join(shown.held))
    return made.model_dump(mode="json", by_alias=True, exclude_none=True)


def refused(
    body: Mapping[str, Any], issues: Iterable[Issue], seen: Observed, before: Status | None, now: str
) -> dict[str, Any]:
    """Return the status of a manifest that is not carried out: what serves goes on, and the message says what is wrong."""
    words = "; ".join(str(issue) for issue in issues)[:4000]
    generation = int(body["metadata"].get("generation", 0))
    up = seen.router is not None and seen.router.large.revision in seen.facts.answers
    rows = [
        ("Accepted", "False", "Invalid", words),
        ("Serving", "True" if up else "False", "Answering" if up else "NotStarted",
         "the generation before goes on answering" if up else "no model answers"),
        ("Progressing", "False", "Invalid", "nothing is done before the manifest is corrected"),
        ("Ready", "False", "Invalid", "this generation is not carried out; see Accepted"),
    ]  # fmt: skip
    kept = before or Status()
    made = kept.model_copy(
        update={
            "observed_generation": generation, "phase": "Refused", "progress": None,
            "conditions": [_condition(*row, generation, now, before) for row in rows],
        }
    )  # fmt: skip
    return made.model_dump(mode="json", by_alias=True, exclude_none=True)


def is_bad(kind: str, state: str) -> bool | None:
    """Return whether a condition's state is worth a warning, or good news; None when it is neither."""
    if kind == "Degraded":
        return True if state == "True" else None
    if state == "True":
        return False
    return True if state == "False" and kind == "Accepted" else None


def _progress(shown: Shown) -> Progress | None:
    """Return where the work stands; None when there is none."""
    stage = _PHASE_STAGE.get(loop.phase(shown.model, shown.observed))
    if stage is None or shown.settled or shown.observed.failure is not None:
        return None
    line = next(
        (
            log.progress
            for job in shown.seen.jobs
            if job.stage == stage and job.pod and (log := shown.seen.facts.logs.get(job.pod.uid))
        ),
        None,
    )
    base = sum(_SHARE[name] for name in _STAGES[: _STAGES.index(stage)])
    if line is None:
        return Progress(step=stage, percent=base)
    return Progress(
        step=f"{stage}: {line.step}", percent=base + _SHARE[stage] * line.percent // 100,
        eta_seconds=_rounded(line.eta_seconds),
    )  # fmt: skip


def _rounded(seconds: float | None) -> int | None:
    """Return a time in whole half minutes: a status that changes every second would be written every second."""
    return None if seconds is None else -int(-seconds // 30) * 30


def _with_reason(made: Status, failure: Trouble, now: str, before: Status | None) -> Status:
    """Give the conditions that are about a failure its reason."""
    for condition in made.conditions:
        if condition.reason == "Failed":
            made = _replaced(
                made, condition.type, condition.status, failure.reason, condition.message, now, before
            )
    return made


def _with_trouble(made: Status, trouble: Trouble, now: str, before: Status | None) -> Status:
    """Let the conditions say what keeps the work from getting on; it may pass by itself."""
    for condition in made.conditions:
        if condition.status != "True" and trouble.step in _ABOUT.get(condition.type, ()):
            made = _replaced(
                made, condition.type, condition.status, trouble.reason, trouble.message, now, before
            )
    ready = next(c for c in made.conditions if c.type == "Ready")
    if ready.status != "True":
        made = _replaced(made, "Ready", ready.status, trouble.reason, trouble.message, now, before)
    degraded = next(c for c in made.conditions if c.type == "Degraded")
    passing = trouble.reason in ("Suspended", "ReadingResult", VOLUME_PENDING)
    if passing or degraded.reason not in (loop.AS_DECLARED, loop.PROMISE_BROKEN):
        return made
    # A new recipe is how a broken promise is mended: what keeps it from coming must not stand behind that.
    rest = f"; and {degraded.message}" if degraded.status == "True" else ""
    return _replaced(made, "Degraded", "True", trouble.reason, f"{trouble.message}{rest}", now, before)


def _noted(made: Status, kind: str, words: str) -> Status:
    conditions = [
        c.model_copy(update={"message": f"{c.message}; {words}" if c.message else words})
        if c.type == kind
        else c
        for c in made.conditions
    ]
    return made.model_copy(update={"conditions": conditions})


def _replaced(
    made: Status, kind: str, state: str, reason: str, message: str, now: str, before: Status | None
) -> Status:
    new = _condition(kind, state, reason, message, made.observed_generation, now, before)
    return made.model_copy(update={"conditions": [new if c.type == kind else c for c in made.conditions]})


def _condition(
    kind: str, state: str, reason: str, message: str, generation: int, now: str, before: Status | None
) -> Condition:
    old = next((c for c in before.conditions if c.type == kind), None) if before else None
    since = old.last_transition_time if old is not None and old.status == state else now
    return Condition.model_validate(
        {
            "type": kind, "status": state, "reason": reason, "message": message, "observedGeneration": generation,
            "lastTransitionTime": since,
        }
    )  # fmt: skip
