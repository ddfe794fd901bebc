"""What must be true of an external teacher and of the steps that learn from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from pydantic import BaseModel

from .base import number, seconds
from .classification import EMBEDDING, TASK
from .errors import Issue
from .external import in_the_clear
from .resource import Spec
from .teacher import TeacherAccess

FIELD = "spec.teacher"
PERMISSION = "spec.routing.externalProviders"
MOST_USD = Decimal(10**9)


def learns(step: BaseModel | None) -> bool:
    """Return whether a step learns the external teacher's answers."""
    return getattr(step, "answers", None) == "Teacher"


def learners(spec: Spec) -> list[str]:
    """Return the places of the steps that learn the external teacher's answers."""
    found = ["spec.large.finetune"] if learns(spec.large.finetune) else []
    steps = (spec.lean and spec.lean.steps) or []
    return found + [f"spec.lean.steps[{index}]" for index, step in enumerate(steps) if learns(step)]


def access_of(spec: Spec, steps: Sequence[BaseModel | None]) -> TeacherAccess | None:
    """Return what a Job with these steps is told of the teacher; None where none of them learns from it."""
    if spec.teacher is None or not any(map(learns, steps)):
        return None
    return TeacherAccess(permission=spec.routing.external_providers, teacher=spec.teacher)


def access_issues(access: TeacherAccess | None, places: Sequence[str]) -> list[Issue]:
    """Return why nothing may be asked for the steps at these places: it fails closed.

    Args:
        access: as a plan or a manifest has it.
        places: of the steps that learn from the teacher, such as ``spec.lean.steps[1]``.
    """
    if not places:
        return []
    if access is None:
        found = "found Teacher, but no teacher is declared"
        return [Issue(f"{places[0]}.answers", found, f"write {FIELD}, or answers: DataSet")]
    if access.permission != "Allowed":
        found = f"found {access.permission}, but {places[0]} has answers: Teacher, for which prompts of the train part would leave"
        return [Issue(PERMISSION, found, "write Allowed, or answers: DataSet")]
    return []


def teacher_issues(spec: Spec) -> Iterable[Issue]:
    """A teacher is allowed, used, reached by https, bounded, and told what to do."""
    places, teacher = learners(spec), spec.teacher
    access = TeacherAccess(permission=spec.routing.external_providers, teacher=teacher) if teacher else None
    yield from access_issues(access, places)
    if spec.task == EMBEDDING and places:
        found = f"found Teacher with task {EMBEDDING}, whose models give no answers"
        yield Issue(f"{places[0]}.answers", found, "remove it")
    if teacher is None:
        return
    if not places:
        yield Issue(FIELD, "no step learns from it", "write answers: Teacher in a step, or remove it")
    if in_the_clear(url := teacher.external.base_url):
        found = f"found {url}, which would carry prompts unencrypted"
        yield Issue(f"{FIELD}.external.baseUrl", found, "write https://")
    if Decimal(teacher.max_usd) > MOST_USD:
        yield Issue(f"{FIELD}.maxUSD", f"found {teacher.max_usd}", f"write at most {MOST_USD}")
    if number(teacher.temperature) > 2:
        yield Issue(f"{FIELD}.temperature", f"found {teacher.temperature}", 'write from "0" to "2"')
    for name, text in (("timeout", teacher.timeout), ("retryFor", teacher.retry_for)):
        if seconds(text) <= 0:
            yield Issue(f"{FIELD}.{name}", f"found {text}", "write above 0, such as 2m")
    if spec.task == TASK and teacher.system is None:
        found = f"found none with task {TASK}: a text alone does not say what to answer"
        yield Issue(
            f"{FIELD}.system", found, "write what to do, such as 'Answer with one word: ham or spam.'"
        )


CEL_SPEC: list[tuple[str, str]] = [
    (
        "!has(self.large.finetune) || !has(self.large.finetune.answers) || self.large.finetune.answers != 'Teacher' || "
        "(has(self.teacher) && has(self.routing) && has(self.routing.externalProviders) && "
        "self.routing.externalProviders == 'Allowed')",
        "large.finetune.answers: Teacher needs spec.teacher, and routing.externalProviders: Allowed, as prompts of the train part leave",
    ),
    (
        "!has(self.lean) || !has(self.lean.steps) || !self.lean.steps.exists(s, has(s.answers) && s.answers == 'Teacher') || "
        "(has(self.teacher) && has(self.routing) && has(self.routing.externalProviders) && "
        "self.routing.externalProviders == 'Allowed')",
        "lean.steps[].answers: Teacher needs spec.teacher, and routing.externalProviders: Allowed, as prompts of the train part leave",
    ),
    (
        "!has(self.routing) || !has(self.routing.externalProviders) || self.routing.externalProviders != 'Allowed' || "
        "has(self.routing.fallback) || has(self.teacher)",
        "routing.externalProviders: Allowed needs a provider: write routing.fallback or teacher, or Forbidden",
    ),
    (
        "!has(self.dataSets) || has(self.teacher) || self.dataSets.all(d, !has(d.choices) || has(d.answer))",
        "dataSets[].choices are given but no answer: write the answer's column, such as {label}",
    ),
]
"""The same for the API server, at ``spec``."""
