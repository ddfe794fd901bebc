"""The search as a Job: candidates are made through the store as if each stood in a manifest, and measured.

Nothing but the validation part is looked at. What was made or measured is kept under the key of its inputs, so a
killed search goes on where it was, and a second one finds everything; recipes that begin alike share what is alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from leanmodel_api.errors import InputError, Issue, ManifestError, RefusedError
from leanmodel_api.figure import Estimate
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.progress import ProgressLine
from leanmodel_api.search import Outcome, SearchFound, Sensitivity, Tried
from leanmodel_store import datasets
from leanmodel_store.artifacts import Entry, Store

from .. import checks, encode, hf, machine, memory
from ..classifiers.shapes import any_shape
from ..held_back import held_back
from ..keys import step_key, versions
from ..progress import Reporter
from . import measure, planning, sensitivity
from .candidates import Candidate, Chain
from .halving import RUNGS, SHARES, Course, Entrant, Halving
from .measure import Judged
from .planning import FIELD, RowsOf

RunRecipe = Callable[[CompressPlan, Reporter], CompressResult]
"""Makes one candidate: a Job of its own within this one."""


@dataclass
class Searching:
    """One search.

    Attributes:
        plan: with a search, and the large model as its base.
        store: where everything is kept.
        reporter: told how far it is.
        run_recipe: makes a candidate.
        rows_of: rows of a data set by the large model's tokenizer.
        parts: the data set of the promise.
    """

    plan: CompressPlan
    store: Store
    reporter: Reporter
    run_recipe: RunRecipe
    rows_of: RowsOf
    parts: datasets.Parts
    _made: dict[int, CompressResult] = field(default_factory=dict)
    _kept: dict[int, tuple[Estimate, Estimate]] = field(default_factory=dict)
    _seconds: dict[int, float] = field(default_factory=dict)
    _notes: dict[int, str] = field(default_factory=dict)
    _counted: set[str] = field(default_factory=set)
    _runs: int = 0
    _budget: int = 0

    def run(self) -> CompressResult:
        """Find the lean model.

        Raises:
            ManifestError: nothing fits the budget, or data sets overlap with what the proof holds back.
            InputError: no candidate keeps the promise.
            RefusedError: too little memory or disk.
        """
        started = time.monotonic()
        if found := held_back(self.plan, planning.data_sets(self.plan), Path(self.plan.base_dir), self.store):
            raise ManifestError(found)
        assert self.plan.base is not None
        search, large = planning.search_of(self.plan), self.store.open(self.plan.base)
        shape = any_shape(hf.read_json(large.path / hf.CONFIG))
        if found := checks.model_issues(shape, self.plan):
            raise ManifestError(found)
        kind = hf.tokenizer_kind(large.path)
        budget = self._budget = planning.budget_of(search, hf.stored_bytes(large.path))
        self._chain: Chain = planning.chain_of(self.plan, shape, self.rows_of, kind, self._choices)
        self._proposal = planning.proposal(self.plan, shape, budget, self._chain)
        if found := planning.issues(self._proposal, budget):
            raise ManifestError(found)
        self._gflops = machine.probe_gflops(shape.hidden, shape.intermediate)
        self._large = measure.quality(self._judged(large))
        if self._large.n == 0 or self._large.value <= 0:
            words = f"the large model answers none of {self._large.n} rows of the validation part as wanted"
            raise InputError(
                Issue(f"{FIELD}.promise", words, "adapt it first (spec.large.finetune), or give more rows")
            )
        retain = float(search.promise.retain)
        course = Halving(
            [Entrant(one.name, one.bytes, one.trains) for one in self._candidates],
            retain, budget, self._ask, self._planned,
        ).run()  # fmt: skip
        if course.chosen is None:
            raise InputError(self._none_passes(course, retain, budget))
        winner = self._made[course.chosen]
        self._end_plan()
        effects = self._sensitivity(winner, self._candidates[course.chosen], large)
        self.reporter.end("finished")
        return CompressResult(
            name=self.plan.name,
            role=self.plan.role,
            plan=self.plan.key(),
            artifact=winner.artifact,
            bytes=winner.bytes,
            parameters=winner.parameters,
            steps=winner.steps,
            search=SearchFound(
                data_set=self._set_name,
                metric="BalancedAccuracy" if self._choices else "TokenAccuracy",
                rows=self._large.n,
                budget_bytes=budget,
                retain=retain,
                use=search.promise.use,
                large_bytes=hf.stored_bytes(large.path),
                large=self._large,
                chosen=self._candidates[course.chosen].name,
                proposed=self._proposal.considered,
                over_budget=self._proposal.over,
                frontier=[self._tried(at, course) for at in range(len(self._candidates))],
                sensitivity=effects,
                seconds=round(time.monotonic() - started, 3),
            ),
            seconds=round(time.monotonic() - started, 3),
        )

    @property
    def _candidates(self) -> tuple[Candidate, ...]:
        return self._proposal.candidates

    @property
    def _set_name(self) -> str:
        return planning.data_set(self.plan, planning.search_of(self.plan).promise.data_set)

    @property
    def _choices(self) -> tuple[str, ...]:
        data = next(data for data in self.plan.data_sets if data.name == self._set_name)
        return tuple(data.choices or ())

    # ------------------------------------------------------------------------------- measuring

    def _ask(self, at: int, rung: int) -> float:
        """Make a candidate with a rung's share of its training, and return what it keeps of the large model's quality."""
        candidate = self._candidates[at]
        self.reporter.start(self._runs, candidate.name)
        try:
            made = self.run_recipe(
                planning.recipe(self.plan, candidate.at(SHARES[rung])), self._below(candidate.name)
            )
        except RefusedError:
            raise
        except InputError as error:
            # One recipe that breaks, by a loss that is no number for example, says nothing about the others.
            self._notes[at] = str(error)
            self._ended()
            return math.nan
        self._made[at] = made
        self._seconds[at] = self._seconds.get(at, 0.0) + self._fresh_seconds(made)
        quality = measure.quality(self._judged(self.store.open(made.artifact)))
        kept = measure.retained(quality, self._large)
        self._kept[at] = (quality, kept)
        self._ended()
        if made.bytes > self._budget:
            self._notes[at] = (
                f"{planning.size(made.bytes)} as stored, above the budget of {planning.size(self._budget)}"
            )
            return math.nan
        return kept.low if planning.search_of(self.plan).promise.use == "Bound" else kept.value

    def _judged(self, entry: Entry) -> Judged:
        """Return a model's answers to the validation part, found in the store or asked for."""
        length = self.plan.max_model_length

        def ask() -> str:
            examples = self.parts.validation
            if self.plan.task is None:
                return measure.generator(entry.path, examples, self._choices, length).to_json()
            return measure.classifier(entry.path, examples, length).to_json()

        settings = {"length": length, "choices": bool(self._choices), "task": self.plan.task or ""}
        return Judged.from_json(self._noted("Measure", measure.VERSION, settings, entry, ask))

    def _noted(
        self, kind: str, version: int, settings: Mapping[str, object], entry: Entry, make: Callable[[], str]
    ) -> str:
        """Return a text about a model on the validation part, kept under the key of what it depends on."""
        key = step_key(
            type=kind,
            version=version,
            settings=settings,
            source=entry.digest,
            data=encode.digest((), self.parts.validation),
            libraries=versions(("torch", "transformers", "onnxruntime")),
        )
        found = self.store.find(key)
        if found is None:
            with self.store.staging(key) as staging:
                (staging.path / measure.FILE).write_text(make(), encoding="utf-8")
                memory.give_back()
                found = staging.commit({"kind": kind})
        return (found.path / measure.FILE).read_text(encoding="utf-8")

    def _sensitivity(self, winner: CompressResult, candidate: Candidate, large: Entry) -> Sensitivity:
        """Return what each step of the winner cost, and how much its layers mind being quantised."""
        entries = [large, *(self.store.open(step.artifact) for step in winner.steps)]
        qualities = [self._large, *(measure.quality(self._judged(entry)) for entry in entries[1:])]
        effects = sensitivity.of_steps(winner.steps, qualities)
        quantised = sensitivity.quantising(winner, candidate.steps)
        if quantised is None:
            return effects
        at, spec = quantised
        settings: dict[str, object] = {"spec": spec.model_dump(mode="json"), "rows": sensitivity.ROWS}
        text = self._noted(
            "LayerSensitivity", sensitivity.VERSION, settings, entries[at],
            lambda: sensitivity.of_layers(entries[at].path, spec, self.parts.validation, self.reporter.update),
        )  # fmt: skip
        return sensitivity.joined(effects, text)

    # ------------------------------------------------------------------------------- telling

    def _planned(self, who: Sequence[int], rung: int) -> None:
        """Tell the reporter what is left: this rung's candidates, and about as much again for those above it."""
        mine = [planning.seconds(self._candidates[at], SHARES[rung], self._chain, self._gflops) for at in who]
        later = [max(mine, default=0.0)] * (RUNGS - 1 - rung)
        names = ["search"] * (self._runs + len(mine) + len(later) + 1)
        self.reporter.plan(names, [*[0.0] * self._runs, *mine, *later, 1.0])

    def _end_plan(self) -> None:
        self.reporter.plan(["search"] * (self._runs + 1), [*[0.0] * self._runs, 1.0])
        self.reporter.start(self._runs, "sensitivity")

    def _below(self, name: str) -> Reporter:
        """Return a reporter whose lines become the progress of one candidate."""

        def say(line: ProgressLine) -> None:
            self.reporter.update(line.percent, 100.0, f"{name}: {line.step} {line.message}".rstrip())

        return Reporter(self.reporter.job, emit=say)

    def _ended(self) -> None:
        self.reporter.end("finished")
        self._runs += 1

    def _fresh_seconds(self, made: CompressResult) -> float:
        """Return what the steps took that no candidate has counted yet."""
        fresh = [step for step in made.steps if step.key not in self._counted]
        self._counted |= {step.key for step in fresh}
        return sum(step.seconds for step in fresh)

    def _tried(self, at: int, course: Course) -> Tried:
        candidate, rung = self._candidates[at], course.last[at]
        quality, kept = self._kept.get(at, (None, None))
        made = self._made.get(at)
        share = SHARES[rung] if candidate.trains and rung >= 0 else 1.0
        outcome: Outcome = course.ends[at]
        return Tried(
            name=candidate.name,
            steps=list(candidate.steps),
            estimated_bytes=candidate.bytes,
            bytes=made.bytes if made is not None else None,
            rung=rung + 1,
            trained=str(Fraction(share)) if rung >= 0 else "",
            quality=quality,
            retained=kept,
            seconds=round(self._seconds.get(at, 0.0), 3),
            outcome=outcome,
            note=self._notes.get(at, ""),
        )

    def _none_passes(self, course: Course, retain: float, budget: int) -> Issue:
        """Return that no candidate keeps the promise, with the nearest."""
        many = f"none of {len(self._candidates)} candidates within {planning.size(budget)} keeps {retain:g}"
        if course.nearest is None:
            why = next(iter(self._notes.values()), "")
            return Issue(
                FIELD, f"{many}: all broke, the first with: {why}", "change training, or write lean.steps"
            )
        kept, made = self._kept[course.nearest][1], self._made[course.nearest]
        words = (
            f"{many} of the large model's quality ({self._large.value:.4f} on {self._large.n} validation rows); the nearest, "
            f"{self._candidates[course.nearest].name}, keeps {kept.value:.4f} ({kept.low:.4f} to {kept.high:.4f}) with "
            f"{planning.size(made.bytes)}"
        )
        return Issue(
            FIELD, words, "raise the budget, lower promise.retain, or train longer (training.epochs)"
        )
