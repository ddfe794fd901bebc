"""What a Job holds against each other before any work: its plan and those that follow it, the model, the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leanmodel_api.base import number
from leanmodel_api.errors import Issue, ManifestError
from leanmodel_api.plan import CompressPlan
from leanmodel_api.step_rules import order_issues
from leanmodel_api.steps import Heal
from leanmodel_store.artifacts import Entry

from . import checks, hf
from .batches import Rows
from .checks import Planned
from .data import Data
from .search import planning
from .shapes import ModelShape
from .steps.fetch import find_gguf


@dataclass(frozen=True)
class Before:
    """The checks of one Job.

    Attributes:
        plan: what it makes.
        also: plans that start from what it makes.
        data: the data sets of all of them.
        teacher: shape of the model that teaches, where one does.
        teacher_folder: where it lies.
    """

    plan: CompressPlan
    also: Sequence[CompressPlan]
    data: Data
    teacher: ModelShape | None
    teacher_folder: Path | None = None

    def check(self, items: list[Planned], shape: ModelShape, raw: bool, start: Entry) -> None:
        """Hold the plan, and those that follow it, against the model and the data; no work is done yet.

        Args:
            items: the plan's steps.
            shape: of the model that comes in.
            raw: whether that is a fetched source, and no artifact yet.
            start: where it lies.

        Raises:
            ManifestError: something does not fit.
        """
        issues = checks.model_issues(shape, self.plan)
        place = f"{checks.role_field(self.plan)}.source"
        issues += checks.tokenizer_issues(hf.beyond(start.path, shape.vocabulary), shape, place)
        issues += self.token_issues(items, start.path)
        rows: list[Rows | None] = []
        for item in items:
            name = self.data.name_of(item)
            if name is not None:
                issues += self._template_issues(name, start, raw)
            rows.append(None if issues else self.data.of_step(item, None if raw else start))
        if issues:
            raise ManifestError(issues)
        kind, labels = hf.tokenizer_kind(start.path), self.data.labels()
        chained = checks.chain(items, shape, self.plan.seed, rows, self.teacher, kind, labels)
        issues = checks.task_issues(chained)
        for plan in self.also:
            issues += self._also_issues(plan, shape, kind)
        if issues:
            raise ManifestError(issues)

    def token_issues(self, items: Sequence[Planned], folder: Path) -> list[Issue]:
        """Return that a student that was brought along reads other tokens than its teacher.

        Args:
            items: the plan's steps.
            folder: of the student.
        """
        if self.plan.source is None or self.teacher_folder is None:
            return []
        asks = next((item for item in items if item.step.teaches and not _alone(item)), None)
        odd = hf.odd_token(folder, self.teacher_folder)
        if asks is None or odd is None:
            return []
        what = f"its tokenizer is another than the large model's: {odd!r} is in one of them alone, or has another number"
        instead = "name a model with the large one's tokenizer"
        if self.plan.task is None:
            instead += f', or learn from the data set alone: {asks.field} as {{type: Heal, labelWeight: "1"}}'
        return [Issue(f"{checks.role_field(self.plan)}.source", what, instead)]

    def _also_issues(self, plan: CompressPlan, shape: ModelShape, kind: str) -> list[Issue]:
        """Return what is wrong with a plan that will start from the model made here."""
        if plan.source is not None and (plan.task is not None or plan.steps):
            return []  # a model of its own, which its own Job reads
        if plan.search is not None:
            return self._early_search(plan, shape, kind)
        items = [item for item in checks.planned(plan) if item.spec is not None]
        field_name = checks.role_field(plan)
        issues = order_issues(plan.steps, f"{field_name}.steps") + checks.model_issues(shape, plan)
        issues += checks.teacher_issues(plan)
        rows: list[Rows | None] = []
        for item in items:
            wants, name = item.step.data_set(item.spec)
            bad = checks.data_set_issues(plan, name, item.field) if wants else []
            issues += bad
            known = name or (plan.data_sets[0].name if plan.data_sets else "")
            if not wants or bad or known not in self.data.parts:
                rows.append(None)
            else:
                later = None if issues else self.data.lesson(plan, item)
                rows.append(self.data.seen(known, None, later.expected() if later is not None else None))
        if issues:
            return issues
        tasks = [
            (item, task)
            for item, task in checks.chain(items, shape, plan.seed, rows, shape, kind, self.data.labels())
            if task.rows is not None or not item.step.data_set(item.spec)[0]
        ]
        return checks.task_issues(tasks)

    def _early_search(self, plan: CompressPlan, shape: ModelShape, kind: str) -> list[Issue]:
        """Return why a search would find nothing, as far as the data sets that are read by now tell."""
        issues = [*checks.model_issues(shape, plan), *checks.search_issues(plan)]
        if issues or not planning.data_sets(plan) <= set(self.data.parts):
            return issues
        return planning.early_issues(
            plan, shape, lambda name: self.data.seen(name, None), kind, self.data.labels()
        )

    def _template_issues(self, name: str, start: Entry, raw: bool) -> list[Issue]:
        index = [data_set.name for data_set in self.plan.data_sets].index(name)
        gguf = find_gguf(start.path)
        if raw and gguf is not None:
            has = _gguf_has_template(gguf)
        else:
            has = (start.path / "chat_template.jinja").exists() or bool(
                (start.path / "tokenizer_config.json").exists()
                and hf.read_json(start.path / "tokenizer_config.json").get("chat_template")
            )
        return checks.template_issues(self.data.parts[name].train[:1], has, f"spec.dataSets[{index}]")


def _alone(item: Planned) -> bool:
    """Say whether a training step learns from its data set alone."""
    return isinstance(item.spec, Heal) and number(item.spec.label_weight) == 1


def _gguf_has_template(path: Path) -> bool:
    from gguf import GGUFReader

    return "tokenizer.chat_template" in GGUFReader(str(path)).fields
