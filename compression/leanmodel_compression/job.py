"""The Job: checks first, then step after step through the store, each found or made, never half of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leanmodel_api.errors import InputError, Issue, ManifestError, RefusedError
from leanmodel_api.plan import CompressPlan, CompressResult, StepFigure
from leanmodel_store import datasets, sources
from leanmodel_store.artifacts import Entry, Store

from . import checks, devices, hf, machine, memory, schedule
from .batches import Rows
from .before import Before
from .checks import Planned
from .classifiers.shapes import any_shape
from .data import Data
from .external.taught import Taught
from .held_back import held_back
from .keys import step_key, versions
from .progress import Reporter
from .search import planning
from .search.searching import Searching
from .shapes import ModelShape
from .steps.fetch import read_shape
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
    _data: Data = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is learned from an external teacher yet."""
        self._taught = Taught(self.plan, self.store, self.teacher_key)
        self._data = Data(self.plan, self.store, self._taught, self._parts, self._rows)

    def run(self) -> CompressResult:
        """Make the artifact.

        Raises:
            ManifestError: the plan, the data or the model does not fit.
            RefusedError: too little memory or disk, or no GPU where one is asked for, before any work.
        """
        devices.use(self.plan.limits.device)
        if self.plan.search is not None:
            return self._search()
        started = time.monotonic()
        start, raw = self._start()
        hf.leave_hub()
        shape = self._shape(start, raw)
        items = checks.planned(self.plan)
        self._taught.lay_out(self._data.lesson(self.plan, item) for item in items)
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
                if issues := self._before().token_issues(items, current.path):
                    raise ManifestError(issues)
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
        self._data.load(planning.data_sets(self.plan))
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
            lambda name: self._data.seen(name, large),
            self._parts[promised],
        ).run()

    def _start(self) -> tuple[Entry, bool]:
        """Return what the first step starts from, and whether it is a fetched source."""
        if issues := checks.plan_issues(self.plan):
            raise ManifestError(issues)
        base = Path(self.plan.base_dir)
        self._data.load(self._data.wanted())
        taught = {
            self._data.name_of(item) for plan in (self.plan, *self.also) for item in checks.planned(plan)
        }
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

    def _shape(self, start: Entry, raw: bool) -> ModelShape:
        if raw:
            return read_shape(start.path, f"{checks.role_field(self.plan)}.source")
        return any_shape(hf.read_json(start.path / hf.CONFIG))

    def _check(self, items: list[Planned], shape: ModelShape, raw: bool, start: Entry) -> None:
        """Hold the plan, and those that follow it, against the model and the data; no work is done yet."""
        self._before().check(items, shape, raw, start)

    def _before(self) -> Before:
        teacher = self._teacher()
        folder = teacher.path if teacher is not None else None
        return Before(self.plan, self.also, self._data, self._teacher_shape(), folder)

    def _teacher_shape(self) -> ModelShape | None:
        teacher = self._teacher()
        return any_shape(hf.read_json(teacher.path / hf.CONFIG)) if teacher is not None else None

    def _teacher(self) -> Entry | None:
        digest = self.plan.teacher or self.plan.base
        return self.store.open(digest) if digest is not None else None

    def _key(self, item: Planned, source: str) -> str:
        name, teacher = self._data.name_of(item), self._teacher()
        # The order of the rows is drawn by the split's seed; the plan's seed draws what training does with it.
        return step_key(
            type=item.step.name,
            version=item.step.version,
            settings=item.step.settings(item.spec),
            source=source,
            teacher=teacher.digest if item.step.teaches and teacher is not None else None,
            data=self._data.digest(item),
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
        rows = [self._data.of_step(item, current) for item in items[done:]]
        return checks.chain(
            items[done:], shape, self.plan.seed, rows, self._teacher_shape(), labels=self._data.labels()
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
                with devices.noting() as used:
                    outcome = item.step.run(task, place)
                memory.give_back()
                found = self._look(item, outcome.shape or item.step.after(task), staging.path)
            figure = self._figure(item, task, outcome, staging.path, key)
            figure = figure.model_copy(
                update={
                    "seconds": round(time.monotonic() - started, 3),
                    "peak_memory_bytes": meter.peak,
                    "device": used.words(),
                    "figures": {
                        **outcome.figures,
                        **self._taught.figures.get(item.field, {}),
                        **found,
                        **({"peakDeviceBytes": float(used.peak)} if used.peak else {}),
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
        name = self._data.name_of(item) or next(iter(self._parts), None)
        examples = None if name is None or item.spec is None else self._parts[name].validation
        length = item.step.max_length(item.spec) if item.spec is not None else None
        return self._data.kind.look(
            folder, expected, item.field, examples, length or self.plan.max_model_length
        )

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
