"""The Job: checks first, then step after step through the store, each found or made, never half of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leanmodel_api.errors import InputError, Issue, ManifestError, RefusedError
from leanmodel_api.plan import CompressPlan, CompressResult, StepFigure
from leanmodel_api.step_rules import order_issues
from leanmodel_store import datasets, sources
from leanmodel_store.artifacts import Entry, Store

from . import checks, hf, machine, memory, schedule
from .batches import Rows
from .checks import Planned
from .classifiers.shapes import any_shape
from .external.lessons import Lesson, lesson
from .external.taught import Taught
from .held_back import held_back
from .keys import step_key, versions
from .kinds import KINDS, Kind
from .progress import Reporter
from .search import planning
from .search.searching import Searching
from .shapes import ModelShape
from .steps.fetch import find_gguf, read_shape
from .steps.protocol import Outcome, Place, Task


@dataclass
class Job:
    """One run of a plan.

    Attributes:
        plan: what to make.
        store: where it is kept.
        reporter: told how far it is.
        also: further plans whose checks belong before this one's work (the lean model's, while the large one
            is made); nothing of them is run.
        teacher_key: file with the key of the external teacher, where a step learns from one that wants a key.
    """

    plan: CompressPlan
    store: Store
    reporter: Reporter
    also: Sequence[CompressPlan] = ()
    teacher_key: Path | None = None
    _parts: dict[str, datasets.Parts] = field(default_factory=dict)
    _rows: dict[tuple[str, str], Rows] = field(default_factory=dict)
    _figures: list[StepFigure] = field(default_factory=list)
    _taught: Taught = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is learned from an external teacher yet."""
        self._taught = Taught(self.plan, self.store, self.teacher_key)

    def run(self) -> CompressResult:
        """Make the artifact.

        Raises:
            ManifestError: the plan, the data or the model does not fit.
            RefusedError: too little memory or disk, before any work.
        """
        if self.plan.search is not None:
            return self._search()
        started = time.monotonic()
        start, raw = self._start()
        hf.leave_hub()
        shape = self._shape(start, raw)
        items = checks.planned(self.plan)
        self._taught.lay_out(self._lesson(self.plan, item) for item in items)
        self._check(items, shape, raw, start)
        done, current = self._walk(items, start, raw)
        self._refuse(items, done, shape, raw, current)
        if self._taught.unasked:
            # Nothing is paid for before all else is known to fit.
            self._taught.ask(self.reporter.asked)
            self._check(items, shape, raw, start)
        self._reporter_plan(items, done, shape, current)
        for index, item in enumerate(items):
            if index < done:
                self.reporter.start(index)
                self.reporter.end("cached")
                continue
            current = self._make(index, items, shape, current)
            if index == 0 and item.spec is None:
                # Now there is a tokenizer: the estimates become exact.
                self._reporter_plan(items, 1, shape, current)
        return CompressResult(
            name=self.plan.name,
            role=self.plan.role,
            plan=self.plan.key(),
            artifact=current.digest,
            bytes=hf.stored_bytes(current.path),
            parameters=hf.stored_parameters(current.path),
            steps=self._figures,
            seconds=round(time.monotonic() - started, 3),
        )

    def _search(self) -> CompressResult:
        """Let the steps be found: each candidate is a Job of its own, on the same data and store."""
        if issues := checks.plan_issues(self.plan):
            raise ManifestError(issues)
        self._load(planning.data_sets(self.plan))
        hf.leave_hub()
        large = self.store.open(self.plan.base or "")
        promised = planning.data_set(self.plan, planning.search_of(self.plan).promise.data_set)

        def one(plan: CompressPlan, reporter: Reporter) -> CompressResult:
            return Job(plan, self.store, reporter, (), self.teacher_key, self._parts, self._rows).run()

        return Searching(
            self.plan,
            self.store,
            self.reporter,
            one,
            lambda name: self._seen(name, large),
            self._parts[promised],
        ).run()

    def _load(self, names: set[str]) -> None:
        """Read and split data sets, those that are not yet."""
        for index, data_set in enumerate(self.plan.data_sets):
            if data_set.name in names and data_set.name not in self._parts:
                named, base = f"spec.dataSets[{index}]", Path(self.plan.base_dir)
                self._parts[data_set.name] = datasets.load(data_set, base, self.store, field=named)

    def _start(self) -> tuple[Entry, bool]:
        """Return what the first step starts from, and whether it is a fetched source."""
        if issues := checks.plan_issues(self.plan):
            raise ManifestError(issues)
        base = Path(self.plan.base_dir)
        self._load(self._wanted())
        taught = {self._data_set(item) for plan in (self.plan, *self.also) for item in checks.planned(plan)}
        taught |= {name for plan in self.also for name in planning.data_sets(plan)}
        if issues := held_back(self.plan, taught, base, self.store):
            raise ManifestError(issues)
        if self.plan.base is not None:
            return self.store.open(self.plan.base), False
        assert self.plan.source is not None
        self.reporter.message("fetching the source")
        place = f"{checks.role_field(self.plan)}.source"
        entry = sources.fetch(
            self.plan.source, base, self.store, self.reporter.fetched, kind="model", field=place
        )
        return entry, True

    def _wanted(self) -> set[str]:
        """Return the names of the data sets that a step or the checks after the steps use."""
        names = {self._data_set(item) for item in checks.planned(self.plan)} - {None}
        names |= {data_set.name for data_set in self.plan.data_sets[:1]} if not names else set()
        return {name for name in names if name is not None}

    def _data_set(self, item: Planned) -> str | None:
        """Return the name of the data set that a step sees, or None."""
        wants, name = item.step.data_set(item.spec)
        if not wants:
            return None
        return name if name is not None else self.plan.data_sets[0].name

    def _shape(self, start: Entry, raw: bool) -> ModelShape:
        if raw:
            return read_shape(start.path, f"{checks.role_field(self.plan)}.source")
        return any_shape(hf.read_json(start.path / hf.CONFIG))

    def _check(self, items: list[Planned], shape: ModelShape, raw: bool, start: Entry) -> None:
        """Hold the plan, and those that follow it, against the model and the data; no work is done yet."""
        issues = checks.model_issues(shape, self.plan)
        place = f"{checks.role_field(self.plan)}.source"
        issues += checks.tokenizer_issues(hf.beyond(start.path, shape.vocabulary), shape, place)
        rows: list[Rows | None] = []
        for item in items:
            name = self._data_set(item)
            if name is not None:
                issues += self._template_issues(name, start, raw)
            rows.append(None if issues else self._rows_of(item, None if raw else start))
        if issues:
            raise ManifestError(issues)
        kind = hf.tokenizer_kind(start.path)
        teacher = self._teacher_shape()
        chained = checks.chain(items, shape, self.plan.seed, rows, teacher, kind, self._labels())
        issues = checks.task_issues(chained)
        for plan in self.also:
            issues += self._also_issues(plan, shape, kind)
        if issues:
            raise ManifestError(issues)

    def _also_issues(self, plan: CompressPlan, shape: ModelShape, kind: str) -> list[Issue]:
        """Return what is wrong with a plan that will start from the model made here."""
        if plan.task is not None and plan.source is not None:
            return []  # a classifier of its own, whose labels its own Job reads
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
            if not wants or bad or known not in self._parts:
                rows.append(None)
            else:
                later = None if issues else self._lesson(plan, item)
                rows.append(self._seen(known, None, later.expected() if later is not None else None))
        if issues:
            return issues
        tasks = [
            (item, task)
            for item, task in checks.chain(items, shape, plan.seed, rows, shape, kind, self._labels())
            if task.rows is not None or not item.step.data_set(item.spec)[0]
        ]
        return checks.task_issues(tasks)

    def _early_search(self, plan: CompressPlan, shape: ModelShape, kind: str) -> list[Issue]:
        """Return why a search would find nothing, as far as the data sets that are read by now tell."""
        issues = [*checks.model_issues(shape, plan), *checks.search_issues(plan)]
        if issues or not planning.data_sets(plan) <= set(self._parts):
            return issues
        return planning.early_issues(plan, shape, lambda name: self._seen(name, None), kind, self._labels())

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
        return checks.template_issues(self._parts[name].train[:1], has, f"spec.dataSets[{index}]")

    def _examples(self, item: Planned) -> datasets.Parts | None:
        """Return what a step sees: its data set, with the external teacher's answers where it learns those."""
        name = self._data_set(item)
        return None if name is None else self._taught.parts.get(item.field, self._parts[name])

    def _rows_of(self, item: Planned, model: Entry | None) -> Rows | None:
        """Return a step's rows; answers that are still to be asked for are taken for as long as they may become."""
        name = self._data_set(item)
        exact = None if item.field in self._taught.unasked else model
        return None if name is None else self._seen(name, exact, self._examples(item))

    def _seen(self, name: str, model: Entry | None, parts: datasets.Parts | None = None) -> Rows:
        """Return the rows of a data set: tokenised by a model's tokenizer, or of about the right length."""
        parts, labels = parts or self._parts[name], self._labels(name)
        if model is None:
            return self._kind.rough(parts, labels)
        place = (f"{name} {parts.digest}", model.digest)
        if place not in self._rows:
            self._rows[place] = self._kind.rows(model.path, parts, labels)
        return self._rows[place]

    @property
    def _kind(self) -> Kind:
        """What this plan's task makes otherwise."""
        return KINDS[self.plan.task]

    def _labels(self, name: str | None = None) -> tuple[str, ...]:
        """Return the labels of a data set (default: of the first that is used), in the manifest's order."""
        wanted = name or next(iter(self._parts), None)
        data = next((data for data in self.plan.data_sets if data.name == wanted), None)
        return tuple(data.choices or ()) if data is not None else ()

    def _teacher_shape(self) -> ModelShape | None:
        teacher = self._teacher()
        return any_shape(hf.read_json(teacher.path / hf.CONFIG)) if teacher is not None else None

    def _teacher(self) -> Entry | None:
        digest = self.plan.teacher or self.plan.base
        return self.store.open(digest) if digest is not None else None

    def _lesson(self, plan: CompressPlan, item: Planned) -> Lesson | None:
        """Return what a step is to learn from the plan's external teacher, where it does."""
        name = item.step.data_set(item.spec)[1] or (plan.data_sets[0].name if plan.data_sets else "")
        parts = self._parts.get(name)
        return None if parts is None else lesson(plan, item, parts, self._labels(name))

    def _key(self, item: Planned, source: str) -> str:
        name, teacher, parts = self._data_set(item), self._teacher(), self._examples(item)
        # The order of the rows is drawn by the split's seed; the plan's seed draws what training does with it.
        return step_key(
            type=item.step.name,
            version=item.step.version,
            settings=item.step.settings(item.spec),
            source=source,
            teacher=teacher.digest if item.step.teaches and teacher is not None else None,
            data=self._kind.digest(parts, self._labels(name)) if parts is not None else None,
            seed=self.plan.seed if name is not None else 0,
            libraries=versions(item.step.libraries),
        )

    def _walk(self, items: list[Planned], start: Entry, raw: bool) -> tuple[int, Entry]:
        """Go along the steps that are finished already; return how many and the last artifact."""
        current = start
        for index, item in enumerate(items):
            # A step's key is not known before its answers are.
            waits = item.field in self._taught.unasked
            entry = None if waits else self.store.find(self._key(item, current.digest))
            if entry is None:
                return index, current
            self._figures.append(_cached(entry))
            current = entry
        return len(items), current

    def _tasks(
        self, items: list[Planned], done: int, shape: ModelShape, current: Entry | None
    ) -> list[tuple[Planned, Task]]:
        """Return the tasks that are left, with shape and rows as exact as they can be known by now."""
        if done and current is not None:
            shape = any_shape(hf.read_json(current.path / hf.CONFIG))
        rows = [self._rows_of(item, current) for item in items[done:]]
        return checks.chain(
            items[done:], shape, self.plan.seed, rows, self._teacher_shape(), labels=self._labels()
        )

    def _refuse(self, items: list[Planned], done: int, shape: ModelShape, raw: bool, current: Entry) -> None:
        tasks = self._tasks(items, done, shape, None if raw and done == 0 else current)
        free = machine.look(self.store.root)
        if issues := checks.refusals(tasks, self.plan.limits.memory_bytes, free):
            raise RefusedError(issues)

    def _reporter_plan(self, items: list[Planned], done: int, shape: ModelShape, current: Entry) -> None:
        """Tell the reporter how long each step will take; finished ones take nothing."""
        names = [item.step.name.lower() for item in items]
        if done == len(items):
            self.reporter.plan(names, [0.0] * len(items))
            return
        unknown = items[0].spec is None and done == 0
        tasks = self._tasks(items, done, shape, None if unknown else current)
        gflops = machine.probe_gflops(shape.hidden, shape.intermediate)
        estimates = [schedule.seconds(item.step.work(task), gflops) for item, task in tasks]
        self.reporter.plan(names, [0.0] * done + estimates)

    def _make(self, index: int, items: list[Planned], shape: ModelShape, current: Entry) -> Entry:
        """Find or make one step's output."""
        item = items[index]
        key = self._key(item, current.digest)
        task = self._tasks(items, index, shape, None if item.spec is None else current)[0][1]
        self.reporter.start(index)
        with self.store.lock(key):
            entry = self.store.find(key)
            if entry is not None:
                self._figures.append(_cached(entry))
                self.reporter.end("cached")
                return entry
            memory.give_back()
            entry = self._work(item, task, key, current)
        self._figures.append(StepFigure.model_validate(entry.meta["figure"]))
        self.reporter.end("finished")
        return entry

    def _work(self, item: Planned, task: Task, key: str, current: Entry) -> Entry:
        """Do one step in a staging folder, look at what came out, and commit it."""
        started, teacher = time.monotonic(), self._teacher() if item.step.teaches else None
        with self.store.staging(key) as staging:
            place = Place(
                current.path,
                staging.path,
                self.store.scratch(key),
                teacher.path if teacher is not None else None,
                key,
                self.reporter.update,
            )
            with memory.Meter() as meter:
                outcome = item.step.run(task, place)
                memory.give_back()
                found = self._look(item, outcome.shape or item.step.after(task), staging.path)
            figure = self._figure(item, task, outcome, staging.path, key)
            figure = figure.model_copy(
                update={
                    "seconds": round(time.monotonic() - started, 3),
                    "peak_memory_bytes": meter.peak,
                    "figures": {
                        **outcome.figures,
                        **self._taught.figures.get(item.field, {}),
                        **found,
                        "peakAnonymousBytes": float(meter.anonymous),
                    },
                }
            )
            entry = staging.commit({"figure": figure.model_dump(mode="json", by_alias=True)})
        return Entry(entry.digest, entry.key, entry.path, _with_artifact(entry), entry.bytes, entry.files)

    def _look(self, item: Planned, expected: ModelShape, folder: Path) -> dict[str, float]:
        """Load what was made, and measure it on the validation part."""
        if expected.quantised and item.spec is None:
            return {}
        self.reporter.message("checking what was made")
        name = self._data_set(item) or next(iter(self._parts), None)
        examples = None if name is None or item.spec is None else self._parts[name].validation
        length = item.step.max_length(item.spec) if item.spec is not None else None
        return self._kind.look(folder, expected, item.field, examples, length or self.plan.max_model_length)

    @staticmethod
    def _figure(item: Planned, task: Task, outcome: Outcome, folder: Path, key: str) -> StepFigure:
        if outcome.modules_changed < 1:
            raise InputError(Issue(item.field, "the step changed no module", "report this as a defect"))
        return StepFigure(
            type=item.step.name,
            detail=outcome.detail,
            key=key,
            bytes=hf.stored_bytes(folder),
            parameters=hf.stored_parameters(folder),
            modules_changed=outcome.modules_changed,
            estimated_memory_bytes=item.step.memory(task),
            resumed_at=outcome.resumed_at,
        )


def _with_artifact(entry: Entry) -> dict[str, object]:
    figure = dict(entry.meta["figure"])
    figure["artifact"] = entry.digest
    return {**entry.meta, "figure": figure}


def _cached(entry: Entry) -> StepFigure:
    figure = StepFigure.model_validate(_with_artifact(entry)["figure"])
    return figure.model_copy(update={"cached": True, "key": entry.key})


def _gguf_has_template(path: Path) -> bool:
    from gguf import GGUFReader

    return "tokenizer.chat_template" in GGUFReader(str(path)).fields
