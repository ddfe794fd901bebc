"""What a search must hold: a budget, a promise that can be measured, and gates that it does not run into. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .base import number
from .datasets import DataSet
from .errors import Issue
from .resource import Spec
from .search import Search
from .search_budget import budget_issues

FIELD = "spec.lean.search"


def search_issues(spec: Spec) -> Iterable[Issue]:
    """Yield what is wrong with a search; nothing where there is none."""
    search = spec.lean.search if spec.lean is not None else None
    if search is None:
        return
    if spec.task == "text-embedding":
        yield Issue(FIELD, f"found a search with task {spec.task}: not supported yet", "write lean.steps")
        return
    yield from budget_issues(spec, search.budget)
    if not number(search.promise.retain) > 0:
        yield Issue(
            f"{FIELD}.promise.retain",
            f"found {search.promise.retain}",
            'write a share above 0, such as "0.97"',
        )
    yield from _data(spec, search)
    yield from _gates(spec, search)


def promised_on(spec: Spec, search: Search) -> DataSet | None:
    """Return the data set that the promise is about; None where it cannot be told."""
    name = search.promise.data_set
    if name is None:
        return spec.data_sets[0] if len(spec.data_sets) == 1 else None
    return next((data for data in spec.data_sets if data.name == name), None)


def _data(spec: Spec, search: Search) -> Iterable[Issue]:
    data = promised_on(spec, search)
    if data is None:
        return  # said with the references to data sets
    field = f"spec.dataSets[{spec.data_sets.index(data)}]"
    if data.answer is None:
        found = "has no answer, and a search measures quality against the wanted ones"
        yield Issue(f"{field}.answer", found, "write the answer's column, such as {label}, or lean.steps")
    if number(data.split.validation) == 0:
        found = "found 0, and a search judges its candidates on that part"
        yield Issue(f"{field}.split.validation", found, 'write a share, such as "0.1"')


def _gates(spec: Spec, search: Search) -> Iterable[Issue]:
    """Yield gates that a model within the budget, or one that keeps the promise, could still fail by its own terms."""
    ratio = search.budget.size_ratio
    for index, gate in enumerate(spec.evaluation.gates):
        field = f"spec.evaluation.gates[{index}]"
        if gate.metric == "SizeRatio" and gate.max and ratio and number(gate.max) < number(ratio):
            found = (
                f"found {gate.max}, less than {FIELD}.budget.sizeRatio {ratio}: what is found could not pass"
            )
            yield Issue(f"{field}.max", found, f"write {ratio}, or lower the budget")
        if (
            gate.metric == "LeanQualityRetained"
            and gate.min
            and number(gate.min) > number(search.promise.retain)
        ):
            found = f"found {gate.min}, more than {FIELD}.promise.retain {search.promise.retain}: what is found could not pass"
            yield Issue(f"{field}.min", found, f"write at most {search.promise.retain}, or raise the promise")
