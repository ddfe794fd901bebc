"""Successive halving over candidates that are all known: asked and told to Optuna, which keeps the study.

Every candidate gets a small share of its training, the best quarter of them four times as much, and the best of these
all of it (Jamieson and Talwalkar, AISTATS 2016). What is looked for is not the best model but the cheapest that keeps
the promise. So a candidate's value on a rung is, where it is on its way to the promise, 1 and the share of the budget
that it leaves; and where it is not, how near it is, below 1. On its way means: it keeps the promise, or as much of it as
the best of those that had as little training.

What is known to pass ends all that is dearer. Where no finalist passes, those that were stopped are trained to the end
after all, the most promising first, until one passes: "none passes" is then said of all of them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

REDUCTION = 4
"""One in so many candidates reaches the next rung, with so many times the training."""
RUNGS = 3
SHARES = tuple(REDUCTION ** (rung + 1.0 - RUNGS) for rung in range(RUNGS))
"""Of the training, by rung."""
PARAMETER = "candidate"

Ask = Callable[[int, int], float | Literal["OverBudget"]]
"""From (candidate, rung) to the share of the large model's quality that is kept; NaN where it broke.

OverBudget where what was made takes more than it may: more training would not change that, so it ends there.
"""
End = Literal["Chosen", "Passed", "Failed", "Stopped", "Dearer", "OverBudget", "Broken"]


@dataclass(frozen=True)
class Entrant:
    """What halving knows of a candidate: its bytes, and whether training changes it."""

    name: str
    bytes: int
    trains: bool


@dataclass
class Course:
    """How a search went.

    Attributes:
        chosen: index of the cheapest that passed, None where none did.
        ends: how each candidate ended.
        last: the last rung that each was asked on, -1 for none.
        nearest: index of the best of those that were judged to the end; None where none was.
    """

    chosen: int | None
    ends: list[End]
    last: list[int]
    nearest: int | None


class Rungs(optuna.pruners.BasePruner):  # type: ignore[misc]  # Any where mypy runs
    """Stops all but the best share of the trials that reported on the same rung.

    Optuna's own SuccessiveHalvingPruner is the asynchronous one (ASHA, arXiv 1810.05934): it decides on a trial when it
    reports, against those before it, and so trains the first one to the end whatever it is. Here all candidates of a
    rung are known before one is stopped.
    """

    def __init__(self, reduction: int) -> None:
        """Keep one in ``reduction``, and at least one."""
        self._reduction = reduction

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Say whether the trial is not among the best of its last rung; equal ones stand in the order of their number."""
        step = trial.last_step
        if step is None:
            return False
        peers = [one for one in study.get_trials(deepcopy=False) if step in one.intermediate_values]
        peers.sort(key=lambda one: (-one.intermediate_values[step], one.number))
        keep = math.ceil(len(peers) / self._reduction)
        return trial.number not in {one.number for one in peers[:keep]}


@dataclass
class Halving:
    """One search.

    Attributes:
        entrants: the candidates.
        retain: share of the large model's quality that passes.
        budget: bytes at most; what is left of it makes a candidate better.
        ask: measures one; never called twice with the same arguments.
        planned: told before each rung which candidates will be asked.
    """

    entrants: Sequence[Entrant]
    retain: float
    budget: int
    ask: Ask
    planned: Callable[[Sequence[int], int], None] = lambda who, rung: None
    _ends: dict[int, End] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)
    _kept: dict[int, float] = field(default_factory=dict)
    _best: int | None = None

    def run(self) -> Course:
        """Go up the rungs; the result is a function of what ``ask`` says alone."""
        trials = self._enter()
        alive = set(trials)
        for rung in range(RUNGS - 1):
            alive = self._climb(rung, alive, trials)
        self._finish(sorted(alive, key=self._cost))
        if self._best is None:
            waiting = [at for at, end in self._ends.items() if end == "Stopped"]
            waiting.sort(key=lambda at: (-self._last[at], -self._worth(at, 1.0), self._cost(at)))
            self._finish(waiting, any_will_do=True)
        return self._course(trials)

    def _enter(self) -> dict[int, optuna.trial.Trial]:
        """Return a trial for each candidate, in their order: all are known, so the sampler has nothing to draw."""
        optuna.logging.set_verbosity(logging.ERROR)
        names = [entrant.name for entrant in self.entrants]
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=Rungs(REDUCTION),
        )
        for name in names:
            study.enqueue_trial({PARAMETER: name})
        self._study, choice = study, {PARAMETER: CategoricalDistribution(names)}
        return {names.index(trial.params[PARAMETER]): trial for trial in (study.ask(choice) for _ in names)}

    def _cost(self, at: int) -> tuple[int, str]:
        return self.entrants[at].bytes, self.entrants[at].name

    def _measure(self, at: int, rung: int) -> None:
        """Ask, and settle what is settled by the answer."""
        told = self.ask(at, rung)
        self._last[at] = rung
        kept = self._kept[at] = math.nan if told == "OverBudget" else told
        if told == "OverBudget":
            self._ends[at] = "OverBudget"
        elif math.isnan(kept):
            self._ends[at] = "Broken"
        elif rung == RUNGS - 1 or not self.entrants[at].trains:
            self._ends[at] = "Passed" if kept >= self.retain else "Failed"
            if kept >= self.retain and (self._best is None or self._cost(at) < self._cost(self._best)):
                self._best = at

    def _dearer(self, at: int) -> bool:
        """Say whether a candidate could not win any more, and note it."""
        if self._best is None or self._cost(at) < self._cost(self._best):
            return False
        self._ends.setdefault(at, "Dearer")
        return True

    def _worth(self, at: int, most: float) -> float:
        """Return a candidate's value, the best of its rung having kept ``most``."""
        wanted = self.retain * min(1.0, most)
        kept = self._kept[at]
        if kept >= wanted:
            return 2.0 - self.entrants[at].bytes / max(1, self.budget)
        return kept / wanted

    def _climb(self, rung: int, alive: set[int], trials: dict[int, optuna.trial.Trial]) -> set[int]:
        """Measure the candidates on a rung, the cheapest first, and return those that go on."""
        order = sorted((at for at in alive if not self._dearer(at)), key=self._cost)
        self.planned(order, rung)
        for at in order:
            if not self._dearer(at):
                self._measure(at, rung)
        open_ = [at for at in order if at not in self._ends and not self._dearer(at)]
        most = max((self._kept[at] for at in open_), default=0.0)
        for at in open_:
            trials[at].report(self._worth(at, most), rung)
        going = {at for at in open_ if not trials[at].should_prune()}
        self._ends.update({at: "Stopped" for at in open_ if at not in going})
        return going

    def _finish(self, order: Sequence[int], any_will_do: bool = False) -> None:
        """Train candidates to the end, in this order, but for those that are dearer than one that passes.

        Args:
            any_will_do: stop at the first that passes, even where cheaper ones follow.
        """
        self.planned(order, RUNGS - 1)
        for at in order:
            if any_will_do and self._best is not None:
                break
            if not self._dearer(at):
                self._measure(at, RUNGS - 1)

    def _course(self, trials: dict[int, optuna.trial.Trial]) -> Course:
        if self._best is not None:
            self._ends[self._best] = "Chosen"
        for at, trial in trials.items():
            done = self._ends.get(at) in ("Chosen", "Passed", "Failed")
            self._study.tell(
                trial,
                self._kept[at] if done else None,
                state=TrialState.COMPLETE if done else TrialState.PRUNED,
            )
        ended = [at for at, end in self._ends.items() if end in ("Chosen", "Passed", "Failed")]
        count = range(len(self.entrants))
        return Course(
            chosen=self._best,
            ends=[self._ends.get(at, "Dearer") for at in count],
            last=[self._last.get(at, -1) for at in count],
            nearest=max(ended, key=lambda at: (self._kept[at], -self._cost(at)[0]), default=None),
        )
