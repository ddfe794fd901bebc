"""The Jobs' part of the plan: which to make, which results to record, which to take away. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from leanmodel_api.plan import CompressPlan, ProvePlan
from leanmodel_api.resource import LeanModel

from . import names, teacher
from .candidate import Candidate
from .children import config, job
from .children.owner import Owner
from .observed import JobSeen, Observed, job_result
from .settings import Settings
from .trouble import Trouble, job_trouble

Deletion = tuple[str, str, str]
"""Kind, name, uid."""

NOT_BEGUN = ("ImagePull", "ContainerConfig", "Unschedulable")
"""Troubles of a pod that does not run and will not by itself: once what it asks for is corrected, a Job's template
still asks for the old, and nobody but us can replace it."""


@dataclass(frozen=True)
class JobPlan:
    """What to do about Jobs."""

    creates: tuple[dict[str, Any], ...]
    deletes: tuple[Deletion, ...]
    troubles: tuple[Trouble, ...]


def stage_of(plan: CompressPlan | ProvePlan | None) -> str | None:
    """Return the stage that a plan is of."""
    if plan is None:
        return None
    return f"compress-{plan.role.lower()}" if isinstance(plan, CompressPlan) else "prove"


def plan_jobs(
    owner: Owner, model: LeanModel, seen: Observed, settings: Settings, found: Candidate, wanted: str | None
) -> JobPlan:
    """Return what to do about Jobs.

    A result is recorded before its Job goes; a Job whose inputs are no longer this generation's goes when it has
    nothing to record (what it finished is in the store, and found there again).

    Args:
        wanted: the stage whose Job should run now.
    """
    creates: list[dict[str, Any]] = []
    deletes: list[Deletion] = []
    troubles: list[Trouble] = []
    recorded = {(r.stage, r.key) for r in seen.results}
    for item in seen.jobs:
        work = found.works.get(item.stage)
        mine = work is not None and work.key == item.key
        if (item.stage, item.key) in recorded:
            deletes += gone(seen, item)
        elif item.state == "Succeeded":
            text = job_result(item, seen.facts)
            if text is not None:
                creates.append(config.result_config(owner, item.stage, item.key, item.plan, text=text))
            elif (
                item.pod is None
            ):  # its pod is lost, and the words with it: the store gives them again at once
                deletes += gone(seen, item)
            else:
                troubles.append(
                    Trouble(item.stage, "ReadingResult", f"{item.stage} has ended; its result is being read")
                )
        elif found.works and not mine:
            deletes += gone(seen, item)
        elif item.state == "Failed":
            if work is not None and item.shape != job.shape(model, work, settings):
                deletes += gone(seen, item)
        elif (trouble := job_trouble(item)) is not None:
            if (
                trouble.reason in NOT_BEGUN
                and work is not None
                and item.shape != job.shape(model, work, settings)
            ):
                deletes += gone(seen, item)
            else:
                troubles.append(trouble)
    if found.fresh is not None:
        step, key, words = found.fresh
        creates.append(config.result_config(owner, step, key, key, failure=words))
    creates += _wanted(owner, model, seen, settings, found, wanted)
    if wanted is not None and seen.facts.teacher_key and teacher.teaches(model, wanted):
        troubles.append(Trouble(wanted, "TeacherKeyMissing", seen.facts.teacher_key))
    deletes += _old_results(seen, found, settings)
    deletes += _lost_plans(seen, found)
    return JobPlan(tuple(creates), tuple(dict.fromkeys(deletes)), tuple(troubles))


def _wanted(
    owner: Owner, model: LeanModel, seen: Observed, settings: Settings, found: Candidate, stage: str | None
) -> list[dict[str, Any]]:
    work = found.works.get(stage) if stage is not None else None
    if work is None or seen.facts.missing:
        return []
    if seen.facts.teacher_key and teacher.teaches(model, work.stage):
        return []  # it would fail for want of the key
    name = job.job_name(owner.name, work.stage, work.key)
    if ("Job", name) in seen.objects:
        return []
    plan = config.plan_config(owner, work.stage, work.key, work.plan, dict(work.files))
    made = [] if ("ConfigMap", name) in seen.objects else [plan]
    return [*made, job.job(owner, model, work, settings)]


def gone(seen: Observed, item: JobSeen) -> list[Deletion]:
    """Return the deletion of a Job and of its plan, which has the same name."""
    found: list[Deletion] = [("Job", item.name, item.uid)]
    plan = seen.objects.get(("ConfigMap", item.name))
    if plan is not None:
        found.append(("ConfigMap", item.name, str(plan["metadata"].get("uid", ""))))
    return found


def _old_results(seen: Observed, found: Candidate, settings: Settings) -> list[Deletion]:
    """Return the recorded results past the newest few of each stage; those in use stay."""
    gone: list[Deletion] = []
    for stage in {r.stage for r in seen.results}:
        old = sorted(
            (r for r in seen.results if r.stage == stage and r.name not in found.used),
            key=lambda r: (r.created, r.name), reverse=True,
        )  # fmt: skip
        gone += [("ConfigMap", r.name, r.uid) for r in old[settings.keep_results :]]
    return sorted(gone)


def _lost_plans(seen: Observed, found: Candidate) -> list[Deletion]:
    """Return the plans of Jobs that are gone: a kill between two deletions leaves one."""
    wanted = {(work.stage, work.key) for work in found.works.values()}
    recorded = {(r.stage, r.key) for r in seen.results}
    gone: list[Deletion] = []
    for (kind, name), item in seen.objects.items():
        labels = item["metadata"].get("labels", {})
        if kind != "ConfigMap" or labels.get(names.LABEL_KIND) != "plan" or ("Job", name) in seen.objects:
            continue
        about = (labels.get(names.LABEL_STAGE, ""), labels.get(names.LABEL_KEY, ""))
        if about in recorded or (found.works and about not in wanted):
            gone.append((kind, name, str(item["metadata"].get("uid", ""))))
    return sorted(gone)
