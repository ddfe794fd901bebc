"""Dry run: ``python -m leanmodel_compression.estimate --plan PLAN [--plan PLAN] --store DIR``.

Prints a RunEstimate (JSON). Weights are neither fetched nor read: sizes come from configurations, lengths of rows
from the data sets' text, so that tokens are counted on the long side, as a Job does before it has a tokenizer. The
estimators are the steps' own, which a Job is held to.

Exit codes: 0 it would run, 2 the input is at fault, 3 this machine or the Job's limit is too small.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from leanmodel_api.classification import EMBEDDING
from leanmodel_api.datasets import DataSet
from leanmodel_api.errors import InputError, Issue, LeanModelError, ManifestError, RefusedError
from leanmodel_api.estimate import RunEstimate, StepEstimate, TeacherEstimate
from leanmodel_api.plan import CompressPlan
from leanmodel_api.step_rules import order_issues
from leanmodel_store import datasets, peek
from leanmodel_store.artifacts import Store

from . import checks, devices, hf, machine, schedule
from .batches import Rows
from .checks import Planned
from .classifiers import pooling
from .external.forecast import forecast
from .external.lessons import School, lesson
from .held_back import held_back
from .kinds import KINDS
from .search import forecast as search_forecast
from .search import planning
from .search.candidates import stored
from .shapes import ModelShape
from .steps.fetch import read_shape
from .steps.protocol import Task
from .steps.quantize import stored_bytes

Tasks = list[tuple[Planned, Task]]


def main(arguments: list[str] | None = None) -> int:
    """Print the estimate of the plans, the large model's first, and return the exit code."""
    from .__main__ import read_plan, settle

    parser = argparse.ArgumentParser(prog="python -m leanmodel_compression.estimate", description=__doc__)
    parser.add_argument(
        "--plan", action="append", required=True, type=Path, help="plan, the large model's first"
    )
    parser.add_argument("--store", required=True, type=Path, help="folder of the store")
    options = parser.parse_args(arguments)
    try:
        plans = [read_plan(path) for path in options.plan]
        settle(plans[0].limits.threads, plans[0].limits.device)
        found = estimate(plans, Store(options.store))
    except LeanModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(found.to_json())
    return 3 if found.refusals else 0


def estimate(plans: Sequence[CompressPlan], store: Store) -> RunEstimate:
    """Return what the plans would take, one after the other; a later one starts from what the first would make.

    Raises:
        ManifestError: a plan, its data or its model does not fit.
        InputError: a configuration or a data set is not here.
    """
    steps: list[StepEstimate] = []
    teacher: list[TeacherEstimate] = []
    refusals = no_device(plans[0])
    free = machine.look(store.root)
    found = all_tasks(plans, store)
    for plan, tasks in zip(plans, found, strict=True):
        if plan.search is not None:
            rows = {name: rough(plan, name, store) for name in planning.data_sets(plan)}
            steps += search_forecast.steps(plan, end_of(found[0]), rows)
            continue
        shape = tasks[0][1].shape
        gflops = machine.probe_gflops(shape.hidden, shape.intermediate)
        steps += [told(plan, item, task, gflops) for item, task in tasks]
        refusals += checks.refusals(tasks, plan.limits.memory_bytes, free)
        asked, refused = teaching(plan, store)
        teacher += asked
        refusals += refused
    return RunEstimate(
        steps=steps,
        teacher=teacher,
        memory_limit=plans[0].limits.memory_bytes,
        memory_free=free.memory_bytes,
        disk_free=free.disk_bytes,
        refusals=[str(issue) for issue in refusals],
    )


def no_device(plan: CompressPlan) -> list[Issue]:
    """Take the plan's devices for what is measured here; return why it would be refused them."""
    try:
        devices.use(plan.limits.device)
    except RefusedError as error:
        return list(error.issues)
    return []


def all_tasks(plans: Sequence[CompressPlan], store: Store) -> list[Tasks]:
    """Return each plan's steps with what they would see, the first plan's before those that start from its model.

    A search has none yet: what its candidates are follows from the first plan's model.

    Raises:
        ManifestError: a plan, its data or its model does not fit, or steps would learn what the proof holds back.
        InputError: a configuration or a data set is not here.
    """
    found: list[Tasks] = []
    large: ModelShape | None = None
    kind = ""
    for plan in plans:
        found.append(plan_tasks(plan, large, store, kind) if plan.search is None else [])
        large = large or end_of(found[-1])
        kind = kind or next((task.tokenizer for _, task in found[-1]), "")
    first, base = plans[0], Path(plans[0].base_dir)
    told = (item.step.data_set(item.spec) for tasks in found for item, _ in tasks)
    taught = {name for wants, name in told if wants}.union(*map(planning.data_sets, plans))
    sources = enumerate(data.source for data in first.data_sets)
    if all(peek.here(one, base, store, "data", f"spec.dataSets[{at}].source") for at, one in sources) and (
        issues := held_back(first, taught, base, store)
    ):
        raise ManifestError(issues)
    return found


def end_of(tasks: Tasks) -> ModelShape | None:
    """Return what the last step would make; None where there is none."""
    return tasks[-1][0].step.after(tasks[-1][1]) if tasks else None


def plan_tasks(plan: CompressPlan, large: ModelShape | None, store: Store, kind: str = "") -> Tasks:
    """Return a plan's steps with the shapes and rows that they would see.

    Args:
        plan: what would be made.
        large: the model that it starts from and learns from, where it has no source of its own.
        store: where sources may lie already.
        kind: of the large model's tokenizer, empty where it is not known.
    """
    field = checks.role_field(plan)
    if plan.source is not None:
        also = (pooling.MODULES, pooling.STORED) if plan.task == EMBEDDING else ()
        folder = peek.look(plan.source, Path(plan.base_dir), store, f"{field}.source", also)
        shape, kind = read_shape(folder, f"{field}.source"), hf.tokenizer_kind(folder)
    elif large is not None:
        shape = large
    else:
        raise InputError(Issue(field, "there is no model to start from", "give the large model's plan first"))
    issues = [
        *order_issues(plan.steps, f"{field}.steps"),
        *checks.teacher_issues(plan),
        *checks.model_issues(shape, plan),
    ]
    items = checks.planned(plan)
    rows: list[Rows | None] = []
    for item in items:
        wants, name = item.step.data_set(item.spec)
        bad = checks.data_set_issues(plan, name, item.field) if wants else []
        issues += bad
        rows.append(seen(plan, item, name, store) if wants and not bad else None)
    if issues:
        raise ManifestError(issues)
    labels = next((tuple(data.choices) for data in plan.data_sets if data.choices), ())
    tasks = checks.chain(items, shape, plan.seed, rows, large, kind, labels)
    if issues := checks.task_issues(tasks):
        raise ManifestError(issues)
    return tasks


def seen(plan: CompressPlan, item: Planned, name: str | None, store: Store) -> Rows:
    """Return a step's rows at about their length in tokens; an external teacher's answers as long as they may become.

    Raises:
        InputError: the data set's file is not on this machine.
    """
    data, parts = data_of(plan, name, store)
    labels = tuple(data.choices or ())
    taught = lesson(plan, item, parts, labels)
    return KINDS[plan.task].rough(parts if taught is None else taught.expected(), labels)


def rough(plan: CompressPlan, name: str | None, store: Store) -> Rows:
    """Return a data set's rows at about their length in tokens.

    Raises:
        InputError: the data set's file is not on this machine.
    """
    data, parts = data_of(plan, name, store)
    return KINDS[plan.task].rough(parts, tuple(data.choices or ()))


def data_of(plan: CompressPlan, name: str | None, store: Store) -> tuple[DataSet, datasets.Parts]:
    """Return a data set by its name (None: the first), and its parts.

    Raises:
        InputError: its file is not on this machine.
    """
    index = next(at for at, data in enumerate(plan.data_sets) if name in (None, data.name))
    data, base = plan.data_sets[index], Path(plan.base_dir)
    field = f"spec.dataSets[{index}]"
    if not peek.here(data.source, base, store, "data", f"{field}.source"):
        raise InputError(
            Issue(
                f"{field}.source.uri", f"{data.source.uri} is not here", "fetch it first, or name file:PATH"
            )
        )
    return data, datasets.load(data, base, store, field=field)


def teaching(plan: CompressPlan, store: Store) -> tuple[list[TeacherEstimate], list[Issue]]:
    """Return what each step would ask of the external teacher, and what of its bounds is sure to be passed."""
    if plan.external_teacher is None:
        return [], []
    found = []
    for item in checks.planned(plan):
        wants, name = item.step.data_set(item.spec)
        if wants:
            data, parts = data_of(plan, name, store)
            found.append(lesson(plan, item, parts, tuple(data.choices or ())))
    lessons = [one for one in found if one is not None]
    school = School(plan, store)
    return [forecast(school, one) for one in lessons], school.refusals(lessons)


def told(plan: CompressPlan, item: Planned, task: Task, gflops: float) -> StepEstimate:
    """Return one step's estimate, by its own estimators."""
    after = item.step.after(task)
    size: int | None = stored(item, after)
    if after.quantised:
        size = None if item.spec is None else stored_bytes(task)
    return StepEstimate(
        role=plan.role,
        type=item.step.name,
        field=item.field,
        parameters=after.parameters,
        bytes=size,
        memory_bytes=item.step.memory(task),
        disk_bytes=item.step.disk(task),
        seconds=round(schedule.seconds(item.step.work(task), gflops), 1),
    )


if __name__ == "__main__":
    sys.exit(main())
