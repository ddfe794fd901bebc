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
from leanmodel_api.steps import Distill, Prune

STAGES = ("compress-large", "serve-large", "compress-lean", "serve-lean", "prove")
"""The stages in order; a lean model that is brought along or absent has fewer."""

START_SECONDS = 45.0
"""An engine's start on CPU: imports, weights, warm-up (35 to 50 s measured on two cores)."""
JOB_SECONDS = 25.0
"""A compress Job's fixed part: imports, loading, reload checks, hashing."""
BACKWARD = 2.0
"""A backward pass costs about two forward ones."""
ASK = 1.6
"""A request to the engine against a bare forward pass of its prompt: decoding, HTTP, scheduling."""


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
    rows: int = 5000
    took: dict[str, float] = field(default_factory=dict)
    running: tuple[str, float, float | None] | None = None
    pass_seconds: float = 0.04

    def stages(self) -> tuple[str, ...]:
        """Return the stages that this LeanModel goes through."""
        return STAGES if self.model.spec.lean is not None else STAGES[:2]

    def expected(self, stage: str) -> float:
        """Return what a stage takes: as last time, or by its work."""
        if stage in self.history:
            return self.history[stage]
        spec = self.model.spec
        data = evaluation_data(spec)
        rows = self.rows if data is None or data.max_rows is None else min(self.rows, data.max_rows)
        if stage.startswith("serve"):
            return START_SECONDS
        if stage == "compress-large":
            tuned = spec.large.finetune
            passes = 0.0
            if tuned is not None and data is not None:
                passes = _examples(data, rows, tuned.max_examples) * number(tuned.epochs) * (1 + BACKWARD)
            return JOB_SECONDS + passes * self.pass_seconds
        small = lean_share(self.model)
        if stage == "compress-lean":
            passes = 0.0
            for step in (spec.lean and spec.lean.steps) or []:
                if isinstance(step, Distill) and data is not None:
                    count = _examples(data, rows, step.max_examples)
                    passes += count * (1 + number(step.epochs) * small * (1 + BACKWARD))
            return JOB_SECONDS + passes * self.pass_seconds
        asked = 0.0
        if data is not None:
            asked = rows * sum(
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
        spec = self.model.spec
        data, tuned = evaluation_data(spec), spec.large.finetune
        if stage == "compress-large" and tuned is not None and data is not None and seconds > 2 * JOB_SECONDS:
            passes = _examples(data, self.rows, tuned.max_examples) * number(tuned.epochs) * (1 + BACKWARD)
            self.pass_seconds = (seconds - JOB_SECONDS) / max(1.0, passes)


def _examples(data: DataSet, rows: int, at_most: int | None) -> float:
    count = rows * number(data.split.train)
    return min(count, at_most) if at_most else count


def lean_share(model: LeanModel) -> float:
    """Return the lean model's compute as a share of the large one's, as far as the manifest tells."""
    share = 1.0
    for step in (model.spec.lean and model.spec.lean.steps) or []:
        if isinstance(step, Prune):
            share *= 1 - number(step.ratio) if step.ratio else min(1.0, (step.keep_layers or 1) / 30)
    return max(share, 0.1)
