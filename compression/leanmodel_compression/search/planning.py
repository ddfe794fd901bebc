"""From a plan with a search to its candidates, and what is wrong before any of them is made. Pure but for the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from leanmodel_api.base import number, quantity, size
from leanmodel_api.classification import TASK
from leanmodel_api.errors import Issue
from leanmodel_api.plan import CompressPlan
from leanmodel_api.search import Search
from leanmodel_api.steps import Step

from .. import checks, schedule
from ..batches import Rows
from ..checks import Planned
from ..classifiers.shapes import EncoderShape
from ..shapes import ModelShape
from ..steps.protocol import Task
from .candidates import Candidate, Chain, Proposal, propose
from .footprint import device_of

FIELD = "spec.lean.search"

RowsOf = Callable[[str], Rows]
"""From a data set's name to its rows."""


def search_of(plan: CompressPlan) -> Search:
    """Return what a plan looks for.

    Raises:
        ValueError: it looks for nothing.
    """
    if plan.search is None:
        raise ValueError("the plan has no search")
    return plan.search


def data_set(plan: CompressPlan, name: str | None) -> str:
    """Return the name of a data set: the given one, or the only one's."""
    return name if name is not None else plan.data_sets[0].name


def data_sets(plan: CompressPlan) -> set[str]:
    """Return the data sets that a search learns from or measures on; none where nothing is searched for."""
    if plan.search is None:
        return set()
    return {data_set(plan, name) for name in (plan.search.promise.data_set, plan.search.training.data_set)}


def recipe(plan: CompressPlan, steps: Sequence[Step]) -> CompressPlan:
    """Return the plan that makes one candidate: as if its steps stood in the manifest."""
    return plan.model_copy(update={"search": None, "replica": None, "steps": list(steps)})


def budget_of(search: Search, large: int) -> int:
    """Return the bytes that a lean model may take at most, of a large one of so many: as many where bytes are not bounded."""
    found = []
    if search.budget.bytes is not None:
        found.append(int(quantity(search.budget.bytes)))
    if search.budget.size_ratio is not None:
        found.append(int(number(search.budget.size_ratio) * large))
    return min(found, default=large)


def large_bytes(shape: ModelShape) -> int:
    """Return the large model's bytes as stored for serving, before it is made: an encoder's float32, a decoder's bf16."""
    return (4 if isinstance(shape, EncoderShape) else 2) * shape.parameters


def chain_of(
    plan: CompressPlan, shape: ModelShape, rows_of: RowsOf, kind: str, labels: tuple[str, ...]
) -> Chain:
    """Return what tells the tasks of any steps on the large model, which also teaches them."""

    def chain(steps: Sequence[Step]) -> list[tuple[Planned, Task]]:
        items = checks.planned(recipe(plan, steps))
        rows: list[Rows | None] = []
        for item in items:
            wants, name = item.step.data_set(item.spec)
            rows.append(rows_of(data_set(plan, name)) if wants else None)
        return checks.chain(items, shape, plan.seed, rows, shape, kind, labels)

    return chain


def proposal(plan: CompressPlan, shape: ModelShape, budget: int, chain: Chain) -> Proposal:
    """Return the candidates of a plan."""
    limit = plan.limits.memory_bytes
    return propose(shape, search_of(plan), budget, limit, chain, plan.task == TASK, device_of(plan))


def issues(found: Proposal, budget: int) -> list[Issue]:
    """Return that nothing fits, with what would."""
    if found.candidates:
        return []
    if found.smallest is None:
        words = "no recipe works on this model within spec.jobs.compress.memory"
        return [Issue(FIELD, words, "raise the memory, or write lean.steps")]
    if found.device is not None and found.least is not None and found.least > found.device:
        words = f"{size(found.device)}, and a replica of the smallest of {found.considered} recipes takes about {size(found.least)}"
        advice = (
            "raise it, or lower spec.serving.lean.kvCache or maxModelLength, or name a smaller large model"
        )
        return [Issue(f"{FIELD}.budget.device.memory", words, advice)]
    words = f"{size(budget)}, and the smallest of {found.considered} recipes has about {size(found.smallest)}"
    if found.device is not None and found.smallest <= budget:
        words = f"no one of {found.considered} recipes keeps both {size(budget)} of bytes and {size(found.device)} of memory"
    return [Issue(f"{FIELD}.budget", words, "raise it, or name a smaller large model")]


def early_issues(
    plan: CompressPlan, shape: ModelShape, rows_of: RowsOf, kind: str, labels: tuple[str, ...]
) -> list[Issue]:
    """Return why a search could find nothing, before there is a large model."""
    budget = budget_of(search_of(plan), large_bytes(shape))
    return issues(proposal(plan, shape, budget, chain_of(plan, shape, rows_of, kind, labels)), budget)


def seconds(candidate: Candidate, share: float, chain: Chain, gflops: float) -> float:
    """Return how long a candidate takes with a share of its training, none of it found in the store."""
    return sum(schedule.seconds(item.step.work(task), gflops) for item, task in chain(candidate.at(share)))
