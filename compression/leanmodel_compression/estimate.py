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
from leanmodel_api.errors import InputError, Issue, LeanModelError, ManifestError
from leanmodel_api.estimate import RunEstimate, StepEstimate
from leanmodel_api.plan import CompressPlan
from leanmodel_api.step_rules import order_issues
from leanmodel_store import datasets, peek
from leanmodel_store.artifacts import Store

from . import checks, hf, machine, schedule
from .batches import Rows
from .checks import Planned
from .classifiers import pooling
from .kinds import KINDS
from .search import planning
from .search.candidates import served_bytes, stored
from .search.halving import REDUCTION, RUNGS, SHARES
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
        settle(plans[0].limits.threads)
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
    refusals: list[Issue] = []
    free = machine.look(store.root)
    large: ModelShape | None = None
    for plan in plans:
        if plan.search is not None:
            steps += search_steps(plan, large, store)
            continue
        tasks = plan_tasks(plan, large, store)
        shape = tasks[0][1].shape
        gflops = machine.probe_gflops(shape.hidden, shape.intermediate)
        steps += [told(plan, item, task, gflops) for item, task in tasks]
        refusals += checks.refusals(tasks, plan.limits.memory_bytes, free)
        item, task = tasks[-1]
        large = large or item.step.after(task)
    return RunEstimate(
        steps=steps,
        memory_limit=plans[0].limits.memory_bytes,
        memory_free=free.memory_bytes,
        disk_free=free.disk_bytes,
        refusals=[str(issue) for issue in refusals],
    )


def plan_tasks(plan: CompressPlan, large: ModelShape | None, store: Store) -> Tasks:
    """Return a plan's steps with the shapes and rows that they would see.

    Args:
        plan: what would be made.
        large: the model that it starts from and learns from, where it has no source of its own.
        store: where sources may lie already.
    """
    field, kind = checks.role_field(plan), ""
    if plan.source is not None:
        also = (pooling.MODULES, pooling.STORED) if plan.task == EMBEDDING else ()
        folder = peek.look(plan.source, Path(plan.base_dir), store, f"{field}.source", also)
        shape, kind = read_shape(folder, f"{field}.source"), hf.tokenizer_kind(folder)
    elif large is not None:
        shape = large
    else:
        raise InputError(Issue(field, "there is no model to start from", "give the large model's plan first"))
    issues = [*order_issues(plan.steps, f"{field}.steps"), *checks.model_issues(shape, plan)]
    items = checks.planned(plan)
    rows: list[Rows | None] = []
    for item in items:
        wants, name = item.step.data_set(item.spec)
        bad = checks.data_set_issues(plan, name, item.field) if wants else []
        issues += bad
        rows.append(seen(plan, name, store) if wants and not bad else None)
    if issues:
        raise ManifestError(issues)
    labels = next((tuple(data.choices) for data in plan.data_sets if data.choices), ())
    tasks = checks.chain(items, shape, plan.seed, rows, large, kind, labels)
    if issues := checks.task_issues(tasks):
        raise ManifestError(issues)
    return tasks


def search_steps(plan: CompressPlan, large: ModelShape | None, store: Store) -> list[StepEstimate]:
    """Return a search's candidates with what their first rung takes, and the rungs above it as one row.

    Steps that several candidates share count for each of them, so the sum errs upwards.

    Raises:
        ManifestError: nothing fits the budget.
        InputError: there is no large model's plan, or a data set is not here.
    """
    if large is None:
        raise InputError(Issue(planning.FIELD, "there is no large model", "give its plan first"))
    if issues := [*checks.model_issues(large, plan), *checks.search_issues(plan)]:
        raise ManifestError(issues)
    rows = {name: seen(plan, name, store) for name in planning.data_sets(plan)}
    labels = next((tuple(data.choices) for data in plan.data_sets if data.choices), ())
    chain = planning.chain_of(plan, large, rows.__getitem__, "", labels)
    budget = planning.budget_of(planning.search_of(plan), planning.large_bytes(large))
    found = planning.proposal(plan, large, budget, chain)
    if issues := planning.issues(found, budget):
        raise ManifestError(issues)
    gflops = machine.probe_gflops(large.hidden, large.intermediate)
    told_of = []
    for one in found.candidates:
        tasks = chain(one.at(SHARES[0]))
        told_of.append(
            StepEstimate(
                role=plan.role, type=f"Search {one.name}", field=planning.FIELD,
                parameters=tasks[-1][0].step.after(tasks[-1][1]).parameters, bytes=served_bytes(tasks),
                memory_bytes=max(item.step.memory(task) for item, task in tasks),
                disk_bytes=sum(item.step.disk(task) for item, task in tasks),
                seconds=round(planning.seconds(one, SHARES[0], chain, gflops), 1),
            )
        )  # fmt: skip
    dearest = sorted(found.candidates, key=lambda one: -planning.seconds(one, 1.0, chain, gflops))
    more = 0.0
    count = len(dearest)
    for rung in range(1, RUNGS):
        count = -(-count // REDUCTION)
        more += sum(planning.seconds(one, SHARES[rung], chain, gflops) for one in dearest[:count])
    last = told_of[-1]
    told_of.append(
        last.model_copy(
            update={
                "type": "Search, upper rungs",
                "seconds": round(more, 1),
                "disk_bytes": 2 * last.disk_bytes,
            }
        )
    )
    return told_of


def seen(plan: CompressPlan, name: str | None, store: Store) -> Rows:
    """Return a data set's rows at about their length in tokens.

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
    parts = datasets.load(data, base, store, field=field)
    return KINDS[plan.task].rough(parts, tuple(data.choices or ()))


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
