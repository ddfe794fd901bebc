"""When the lean model will have joined: each stage's own estimate, and a model of the stages to come.

A Job says how long it still needs. Of the stages that have not begun, what a run with the same plan took is
the best guess; without one, their work is counted in passes of an example through the large model, whose
speed the fine-tuning shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from leanmodel_api.base import number
from leanmodel_api.datasets import DataSet
from leanmodel_api.resource import LeanModel
from leanmodel_api.rules import evaluation_data
from leanmodel_api.steps import Distill, Factorize, Heal, Prune, TrainingFields

STAGES = ("compress-large", "serve-large", "compress-lean", "serve-lean", "prove")
"""The stages in order; a lean model that is brought along or absent has fewer."""

START_SECONDS = 45.0
"""An engine's start on CPU: imports, weights, warm-up (35 to 50 s measured on two cores)."""
JOB_SECONDS = 25.0
"""A compress Job's fixed part: imports, loading, reload checks, hashing."""
BACKWARD = 2.0
"""A backward pass costs about two forward ones."""
ASK = 0.95
"""A request to the engine against a forward pass of a training row: decoding and HTTP, but in bf16 and batched."""
UNIT_WORK = {"Neurons": 0.7, "Heads": 0.3}
"""What all of a layer's neurons, or heads, are of its computation, about; only first guesses rest on it."""
SEARCHED = 0.5
"""A search's candidate against the large model, about: they are spread over the budget."""
SEARCH_SHARE = 0.25
"""What a search trains of all that its candidates could be trained; halving with rungs of a quarter takes about that."""
LAYERS = 30
"""Layers that the large model is taken to have before anything has read it; only first guesses rest on it."""


@dataclass(frozen=True)
class Size:
    """How big the data set is.

    Attributes:
        rows: rows after duplicates are gone.
        answers: how often each answer occurs in the train part, empty where there are none.
    """

    rows: int = 5000
    answers: tuple[int, ...] = ()


@dataclass
class Timeline:
    """The stages of one run with what is known of each; times in seconds.

    Attributes:
        history: what each stage took the last time an equal plan ran.
        took: stages that have ended.
        running: the stage under way, when it began, and the estimate of what it still needs.
    """

    model: LeanModel
    history: dict[str, float] = field(default_factory=dict)
    size: Size = Size()
    took: dict[str, float] = field(default_factory=dict)
    running: tuple[str, float, float | None] | None = None
    pass_seconds: float = 0.1

    def stages(self) -> tuple[str, ...]:
        """Return the stages that this LeanModel goes through."""
        return STAGES if self.model.spec.lean is not None else STAGES[:2]

    def expected(self, stage: str) -> float:
        """Return what a stage takes: as last time, or by its work."""
        if stage in self.history:
            return self.history[stage]
        spec = self.model.spec
        data = evaluation_data(spec)
        if stage.startswith("serve"):
            return START_SECONDS
        if stage == "compress-large":
            return JOB_SECONDS + self._tuning_passes() * self.pass_seconds
        small = lean_share(self.model)
        if stage == "compress-lean":
            passes = self._search_passes(data)
            for step in (spec.lean and spec.lean.steps) or []:
                if isinstance(step, Distill | Heal) and data is not None:
                    count = _examples(data, self.size, step)
                    passes += count * (1 + number(step.epochs) * small * (1 + BACKWARD))
            return JOB_SECONDS + passes * self.pass_seconds
        asked = 0.0
        if data is not None:
            asked = self.size.rows * sum(
                number(getattr(data.split, part)) for part in ("fit", "certify", "report", "test")
            )
        asked += spec.evaluation.throughput_requests
        return 10.0 + asked * (1 + small) * ASK * self.pass_seconds

    def remaining(self, now: float) -> float:
        """Return the seconds until the last stage ends."""
        total = 0.0
        for stage in self.stages():
            if stage in self.took:
                continue
            if self.running is not None and self.running[0] == stage:
                _, began, left = self.running
                total += left if left is not None else max(1.0, self.expected(stage) - (now - began))
            else:
                total += self.expected(stage)
        return total

    def percent(self, elapsed: float, now: float) -> int:
        """Return how much of the whole is done, by time."""
        left = self.remaining(now)
        return min(99, int(100 * elapsed / (elapsed + left))) if elapsed + left > 0 else 0

    def learn(self, stage: str, seconds: float) -> None:
        """Note how long a stage took, and what it says of a pass through the large model."""
        self.took[stage] = seconds
        if stage == "compress-large" and seconds > 2 * JOB_SECONDS and (passes := self._tuning_passes()):
            self.pass_seconds = (seconds - JOB_SECONDS) / passes

    def _search_passes(self, data: DataSet | None) -> float:
        """Return the work of a search's trainings in forward passes of the large model; 0 without a search."""
        search = self.model.spec.lean.search if self.model.spec.lean is not None else None
        if search is None or data is None:
            return 0.0
        epochs = number(search.training.epochs)
        one = _examples(data, self.size, search.training) * epochs * (1 + SEARCHED * (1 + BACKWARD))
        return one * search.max_candidates * SEARCH_SHARE

    def _tuning_passes(self) -> float:
        """Return the fine-tuning's work in forward passes of the large model; frozen layers go one way only."""
        tuned, data = self.model.spec.large.finetune, evaluation_data(self.model.spec)
        if tuned is None or data is None:
            return 0.0
        trained = min(1.0, (tuned.train_layers or LAYERS) / LAYERS)
        return _examples(data, self.size, tuned) * number(tuned.epochs) * (1 + BACKWARD * trained)


def _examples(data: DataSet, size: Size, training: TrainingFields) -> float:
    """Return how many examples a training sees: its part of the data, frequent answers thinned."""
    count = size.rows * number(data.split.train)
    if size.answers and training.max_imbalance is not None:
        most = min(size.answers) * training.max_imbalance
        count = sum(min(float(answer), most) for answer in size.answers)
    return min(count, training.max_examples) if training.max_examples else count


def lean_share(model: LeanModel) -> float:
    """Return the lean model's compute as a share of the large one's, as far as the manifest tells."""
    share = SEARCHED if model.spec.lean is not None and model.spec.lean.search is not None else 1.0
    for step in (model.spec.lean and model.spec.lean.steps) or []:
        # Zeros are computed like any other weight.
        if isinstance(step, Prune) and step.method == "Depth":
            share *= 1 - number(step.ratio) if step.ratio else min(1.0, (step.keep_layers or 1) / LAYERS)
        elif isinstance(step, Factorize):
            share *= 1 - number(step.ratio or "0")
        elif isinstance(step, Prune) and step.method in UNIT_WORK:
            share *= 1 - UNIT_WORK[step.method] * number(step.ratio or "0")
    return max(share, 0.1)
