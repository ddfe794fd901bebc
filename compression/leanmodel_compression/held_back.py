"""Whether a Job's steps would learn what the proof holds back: other data sets are compared with the proof's."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from leanmodel_api.errors import Issue
from leanmodel_api.plan import CompressPlan
from leanmodel_store import contamination, datasets
from leanmodel_store.artifacts import Store


def held_back(
    plan: CompressPlan, taught: Collection[str | None], base_dir: Path, store: Store
) -> list[Issue]:
    """Return the data sets that teach what the proof will ask: how many texts, and where the first of them stands.

    Args:
        plan: it names the data set of the proof, where there are several.
        taught: names of the data sets that steps of this plan, or of a later one, see.
        base_dir: folder that relative ``file:`` addresses start from.
        store: where data sets are kept.

    Raises:
        InputError: a data set cannot be read.
    """
    names = [data_set.name for data_set in plan.data_sets]
    if plan.proof_data_set not in names:
        return []
    at, found = names.index(plan.proof_data_set), []
    proof, field = plan.data_sets[at], f"spec.dataSets[{at}]"
    held = datasets.load(proof, base_dir, store, field=field)
    for index, data_set in enumerate(plan.data_sets):
        if data_set.name not in taught or data_set.name == proof.name:
            continue
        place = f"spec.dataSets[{index}]"
        parts = datasets.load(data_set, base_dir, store, field=place)
        if examples := contamination.contaminated(parts, held):
            line = datasets.line_of(proof, base_dir, store, examples[0], field=field)
            found.append(contamination.issue(place, proof.name, examples, line))
    return found
