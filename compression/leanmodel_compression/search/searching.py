"""The search as a Job: candidates are made through the store as if each stood in a manifest, and measured.

Nothing but the validation part is looked at. What was made or measured is kept under the key of its inputs, so a
killed search goes on where it was, and a second one finds everything; recipes that begin alike share what is alike.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from leanmodel_api.errors import InputError, Issue, ManifestError, RefusedError
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.progress import ProgressLine
from leanmodel_api.search import SearchFound, Sensitivity
from leanmodel_store import datasets
from leanmodel_store.artifacts import Entry, Store

from .. import checks, encode, hf, machine, memory
from ..classifiers.shapes import any_shape
from ..held_back import held_back
from ..keys import step_key, versions
from ..progress import Reporter
from . import measure, planning, sensitivity, speed
from .budgets import budgets_of
from .candidates import Candidate, Chain
from .halving import RUNGS, SHARES, Entrant, Halving
from .measure import Judged
from .planning import FIELD, RowsOf
from .speed import Speed
from .telling import Seen, none_passes, tried

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
    _seen: defaultdict[int, Seen] = field(default_factory=lambda: defaultdict(Seen))
    _counted: set[str] = field(default_factory=set)
    _runs: int = 0

    def run(self) -> CompressResult:
        """Find the lean model.

        Raises:
            ManifestError: nothing fits the budget, or data sets overlap with what the proof holds back.
            InputError: no candidate keeps the promise within the budget.
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
        budget = planning.budget_of(search, hf.stored_bytes(large.path))
        self._budgets = budgets_of(self.plan, budget)
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
            raise InputError(
                none_passes(self._candidates, self._seen, course, self._large, retain, self._budgets)
            )
        winner = self._seen[course.chosen].made
        assert winner is not None
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
                budget=search.budget,
                budget_bytes=budget,
                threads=self._budgets.threads,
                served_threads=self._budgets.served_threads,
                retain=retain,
                use=search.promise.use,
                large_bytes=hf.stored_bytes(large.path),
                large=self._large,
                chosen=self._candidates[course.chosen].name,
                proposed=self._proposal.considered,
                over_budget=self._proposal.over,
                frontier=[
                    tried(one, self._seen[at], course, at, self._budgets)
                    for at, one in enumerate(self._candidates)
                ],
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

    def _ask(self, at: int, rung: int) -> float | Literal["OverBudget"]:
        """Make a candidate with a rung's share of its training, and return what it keeps of the large model's quality."""
        candidate, seen = self._candidates[at], self._seen[at]
        self.reporter.start(self._runs, candidate.name)
        try:
            made = self.run_recipe(
                planning.recipe(self.plan, candidate.at(SHARES[rung])), self._below(candidate.name)
            )
        except RefusedError:
            raise
        except InputError as error:
            # One recipe that breaks, by a loss that is no number for example, says nothing about the others.
            seen.note = str(error)
            self._ended()
            return math.nan
        seen.made, entry = made, self.store.open(made.artifact)
        seen.seconds += self._fresh_seconds(made)
        seen.note = self._budgets.bytes_note(made.bytes)
        if not seen.note and self._budgets.threads is not None:
            # No rung makes it faster or slower, so the first one's figure holds for all.
            seen.speed = seen.speed or self._speed(entry, self._budgets.threads)
            seen.note = self._budgets.speed_note(seen.speed)
        if seen.note:
            self._ended()
            return "OverBudget"
        seen.quality = measure.quality(self._judged(entry))
        seen.kept = measure.retained(seen.quality, self._large)
        self._ended()
        return seen.kept.low if planning.search_of(self.plan).promise.use == "Bound" else seen.kept.value

    def _speed(self, entry: Entry, threads: int) -> Speed:
        """Return how fast a model answers on this kind of processor, found in the store or measured."""
        length = self.plan.max_model_length
        settings = {
            "length": length,
            "threads": threads,
            "processor": machine.processor(),
            **versions(("tokenizers",)),
        }
        text = self._noted(
            "Speed", speed.VERSION, settings, entry,
            lambda: speed.measure(entry.path, self.parts.validation, length, threads),
        )  # fmt: skip
        return Speed.from_json(text)

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
