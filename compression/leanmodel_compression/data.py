"""The plan's data sets as its steps see them: read once, split once, tokenised once for each model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from leanmodel_api.plan import CompressPlan
from leanmodel_store import datasets
from leanmodel_store.artifacts import Entry, Store

from . import checks
from .batches import Rows
from .checks import Planned
from .external.lessons import Lesson, lesson
from .external.taught import Taught
from .kinds import KINDS, Kind


@dataclass
class Data:
    """What is read of the data sets.

    Attributes:
        plan: whose data sets.
        store: where fetched ones lie.
        taught: what an external teacher answers in their place.
        parts: the parts of each data set that is read, by name.
        rows: tokenised, by the parts and the model.
    """

    plan: CompressPlan
    store: Store
    taught: Taught
    parts: dict[str, datasets.Parts]
    rows: dict[tuple[str, str], Rows]

    @property
    def kind(self) -> Kind:
        """What this plan's task makes otherwise."""
        return KINDS[self.plan.task]

    def load(self, names: Iterable[str]) -> None:
        """Read and split data sets, those that are not yet.

        Raises:
            InputError: a data set cannot be read, or is none.
        """
        for index, data_set in enumerate(self.plan.data_sets):
            if data_set.name in names and data_set.name not in self.parts:
                named, base = f"spec.dataSets[{index}]", Path(self.plan.base_dir)
                self.parts[data_set.name] = datasets.load(data_set, base, self.store, field=named)

    def wanted(self) -> set[str]:
        """Return the names of the data sets that a step or the checks after the steps use."""
        names = {self.name_of(item) for item in checks.planned(self.plan)} - {None}
        names |= {data_set.name for data_set in self.plan.data_sets[:1]} if not names else set()
        return {name for name in names if name is not None}

    def name_of(self, item: Planned) -> str | None:
        """Return the name of the data set that a step sees, or None."""
        wants, name = item.step.data_set(item.spec)
        if not wants:
            return None
        return name if name is not None else self.plan.data_sets[0].name

    def labels(self, name: str | None = None) -> tuple[str, ...]:
        """Return the labels of a data set (default: of the first that is used), in the manifest's order."""
        wanted = name or next(iter(self.parts), None)
        data = next((data for data in self.plan.data_sets if data.name == wanted), None)
        return tuple(data.choices or ()) if data is not None else ()

    def examples(self, item: Planned) -> datasets.Parts | None:
        """Return what a step sees: its data set, with the external teacher's answers where it learns those."""
        name = self.name_of(item)
        return None if name is None else self.taught.parts.get(item.field, self.parts[name])

    def digest(self, item: Planned) -> str | None:
        """Return the sha256 of what a step learns from, None where it sees no data."""
        parts = self.examples(item)
        return None if parts is None else self.kind.digest(parts, self.labels(self.name_of(item)))

    def of_step(self, item: Planned, model: Entry | None) -> Rows | None:
        """Return a step's rows; answers that are still to be asked for are taken for as long as they may become."""
        name = self.name_of(item)
        exact = None if item.field in self.taught.unasked else model
        return None if name is None else self.seen(name, exact, self.examples(item))

    def seen(self, name: str, model: Entry | None, parts: datasets.Parts | None = None) -> Rows:
        """Return the rows of a data set: tokenised by a model's tokenizer, or of about the right length."""
        parts, labels = parts or self.parts[name], self.labels(name)
        if model is None:
            return self.kind.rough(parts, labels)
        place = (f"{name} {parts.digest}", model.digest)
        if place not in self.rows:
            self.rows[place] = self.kind.rows(model.path, parts, labels)
        return self.rows[place]

    def lesson(self, plan: CompressPlan, item: Planned) -> Lesson | None:
        """Return what a step of this or a later plan is to learn from the plan's external teacher, where it does."""
        name = item.step.data_set(item.spec)[1] or (plan.data_sets[0].name if plan.data_sets else "")
        parts = self.parts.get(name)
        return None if parts is None else lesson(plan, item, parts, self.labels(name))
