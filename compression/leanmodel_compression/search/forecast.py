"""What a search would take: its candidates by the steps' own estimators, before any of them runs."""

from __future__ import annotations

from collections.abc import Mapping

from leanmodel_api.errors import InputError, Issue, ManifestError
from leanmodel_api.estimate import StepEstimate
from leanmodel_api.plan import CompressPlan

from .. import checks, machine
from ..batches import Rows
from ..shapes import ModelShape
from . import planning
from .candidates import served_bytes
from .halving import REDUCTION, RUNGS, SHARES


def steps(plan: CompressPlan, large: ModelShape | None, rows: Mapping[str, Rows]) -> list[StepEstimate]:
    """Return a search's candidates with what their first rung takes, and the rungs above it as one row.

    Steps that several candidates share count for each of them, so the sum errs upwards.

    Args:
        plan: the search's.
        large: the model that candidates start from.
        rows: of each data set that the search names.

    Raises:
        ManifestError: nothing fits the budget.
        InputError: there is no large model's plan.
    """
    if large is None:
        raise InputError(Issue(planning.FIELD, "there is no large model", "give its plan first"))
    if issues := [*checks.model_issues(large, plan), *checks.search_issues(plan)]:
        raise ManifestError(issues)
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
