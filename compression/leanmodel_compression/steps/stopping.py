"""Early stopping: training ends when the validation part has not been answered better for a while; the best weights stay.

A look is a function of the weights alone, so a killed and resumed training sees the same losses in the same order. The
best weights lie beside the checkpoints, whole or not there. They may be newer than the checkpoint that a run resumes
from: then the run finds them again, bit for bit, before it needs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanmodel_api.errors import Issue

from .. import checkpoint
from ..batches import Row, by_length
from ..shapes import ModelShape, forward_flops
from .protocol import Place, StepError, Task

# Rows at least: the loss on fewer is mostly chance.
LEAST_ROWS = 8
FOLDER = "best"


@dataclass
class Stopper:
    """Looks at the validation part, keeps the best weights on disk, and says when to stop.

    Attributes:
        patience: looks in a row without a better loss after which training ends.
        every: optimiser steps between two looks.
        judge: returns the mean loss on the validation part, of the weights as they are.
        trained: the parameters that are trained, by name.
        folder: where the best weights lie.
        fingerprint: the step's key.
        place: the step's place in the manifest, for messages.
        best: smallest loss so far.
        best_at: optimiser step after which it was found; 0 before the first look.
        bad: looks since then.
    """

    patience: int
    every: int
    judge: Callable[[], float]
    trained: dict[str, Any]
    folder: Path
    fingerprint: str
    place: str
    best: float = math.inf
    best_at: int = 0
    bad: int = 0

    def due(self, step: int, total: int) -> bool:
        """Say whether to look after optimiser step ``step`` of ``total``; the last one is always looked at."""
        return step % self.every == 0 or step == total

    def look(self, step: int) -> bool:
        """Measure the weights as they are, keep them if they are the best, and say whether to stop.

        Raises:
            StepError: the loss is not finite.
        """
        loss = self.judge()
        if not math.isfinite(loss):
            found = f"the loss on the validation part became {loss} at optimiser step {step}"
            raise StepError(Issue(f"{self.place}.learningRate", found, "write a smaller one"))
        if loss < self.best:
            self.best, self.best_at, self.bad = loss, step, 0
            weights = {name: parameter.detach() for name, parameter in self.trained.items()}
            checkpoint.save(self.folder, step, weights, {"fingerprint": self.fingerprint})
            return False
        self.bad += 1
        return self.bad >= self.patience

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must remember."""
        return {"best": self.best if self.best_at else None, "bestAt": self.best_at, "bad": self.bad}

    def take(self, state: Mapping[str, Any] | None) -> bool:
        """Go on from a checkpoint's state; False when the best weights that it speaks of are gone."""
        if state is None:
            return False
        kept = checkpoint.latest(self.folder)
        at = kept.at if kept is not None and kept.state.get("fingerprint") == self.fingerprint else 0
        if at < int(state["bestAt"]):
            return False
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.best_at, self.bad = int(state["bestAt"]), int(state["bad"])
        return True

    def put_back(self) -> None:
        """Put the best weights into the parameters.

        Raises:
            StepError: they are gone.
        """
        kept = checkpoint.latest(self.folder)
        if kept is None or kept.at != self.best_at:
            found = f"the weights of optimiser step {self.best_at} are gone from the scratch folder"
            raise StepError(Issue(f"{self.place}.earlyStopping", found, "run it again"))
        tensors = kept.tensors()
        for name, parameter in self.trained.items():
            parameter.data.copy_(tensors[name])


def stopper(
    task: Task,
    place: Place,
    trained: dict[str, Any],
    judge: Callable[[], float] | None,
    pass_steps: int,
) -> Stopper | None:
    """Return what stops the training, or None where the step wants none.

    Args:
        task: the step.
        place: its scratch folder takes the best weights.
        trained: the parameters by name.
        judge: mean loss on the validation part.
        pass_steps: optimiser steps of one pass over the train part.

    Raises:
        StepError: the step cannot look.
    """
    wanted = task.spec.early_stopping
    if wanted is None:
        return None
    if judge is None:
        found = "found it on a step that has no way to look at the validation part"
        raise StepError(Issue(f"{task.field}.earlyStopping", found, "remove it"))
    every = wanted.every_steps or pass_steps
    folder = place.scratch / FOLDER
    return Stopper(wanted.patience, every, judge, trained, folder, place.fingerprint, task.field)


def mean_loss(
    model: Any, rows: Sequence[Row], loss_of: Callable[[Sequence[int]], Any]
) -> Callable[[], float]:
    """Return a function that measures a model: loss per answer position, without dropout or gradients.

    Args:
        model: the model; left in evaluation mode.
        rows: what is measured on.
        loss_of: takes the indices of a micro-batch of ``rows``, returns the summed loss.
    """

    def judge() -> float:
        import torch

        model.eval()
        with torch.no_grad():
            total = sum(float(loss_of(part)) for part in by_length(rows))
        return total / max(1, sum(row.answers for row in rows))

    return judge


def issues(task: Task) -> list[Issue]:
    """Return what is wrong with the part that is looked at."""
    if task.spec.early_stopping is None:
        return []
    count = len(task.rows.validation) if task.rows is not None else 0
    if count >= LEAST_ROWS:
        return []
    found = (
        f"the validation part has {count} rows with an answer, at least {LEAST_ROWS} are needed to stop by"
    )
    return [
        Issue(f"{task.field}.earlyStopping", found, "raise spec.dataSets[].split.validation, or remove it")
    ]


def flops(task: Task, shape: ModelShape, steps: int, pass_steps: int) -> float:
    """Return the operations of all looks, had training to go on to its end."""
    wanted = task.spec.early_stopping
    if wanted is None or task.rows is None:
        return 0.0
    looks = math.ceil(steps / (wanted.every_steps or pass_steps))
    tokens = sum(len(row.ids) for row in task.rows.validation)
    answers = sum(row.answers for row in task.rows.validation)
    return looks * forward_flops(shape, 1.1 * tokens, answers)


def disk(task: Task, trained: int) -> int:
    """Return the bytes of the best weights, twice while one set replaces the other."""
    return 2 * 4 * trained if task.spec.early_stopping is not None else 0
