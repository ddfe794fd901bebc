"""One step of a plan by itself, in this process or in one that is killed on the way."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_compression import hf
from leanmodel_compression.batches import Rows
from leanmodel_compression.classifiers.shapes import any_shape
from leanmodel_compression.kinds import KINDS
from leanmodel_compression.steps import step_of
from leanmodel_compression.steps.protocol import Outcome, Place, Task
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store


def rows_of(plan: CompressPlan, store: Store, model: CompressResult) -> Rows:
    parts = datasets.load(plan.data_sets[0], Path("."), store)
    labels = plan.data_sets[0].choices or ()
    return KINDS[plan.task].rows(store.open(model.artifact).path, parts, labels)


def alone(
    plan: CompressPlan, root: Path, model: CompressResult, folder: Path, scratch: str, kill_at: int | None
) -> tuple[Outcome, bytes]:
    """Run a plan's first step alone, and end this process by SIGKILL when that many layers are done."""
    store = Store(root)
    source = store.open(model.artifact).path
    target = folder / f"{scratch}-{kill_at}"
    target.mkdir()
    shape = any_shape(hf.read_json(source / hf.CONFIG))
    task = Task(plan.steps[0], "spec.lean.steps[0]", shape, 0, rows_of(plan, store, model))

    def progress(done: float, _total: float, _message: str) -> None:
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    place = Place(source, target, folder / scratch, None, "a" * 64, progress)
    outcome = step_of(task.spec, plan.task).run(task, place)
    return outcome, (target / hf.WEIGHTS).read_bytes()


def killed_and_whole(
    plan: CompressPlan, store: Store, model: CompressResult, folder: Path, at: int
) -> tuple[int | None, bool]:
    """Kill the step's process after ``at`` layers and run it again, and once from the start.

    Returns:
        Where the second run went on, and whether both ended with the same bytes.
    """
    known = (plan, store.root, model, folder)
    # A new interpreter: in a forked child torch's pool of threads is gone, and several threads that miss it race.
    child = multiprocessing.get_context("spawn").Process(target=alone, args=(*known, "killed", at))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    resumed, again = alone(*known, "killed", None)
    whole, once = alone(*known, "whole", None)
    assert whole.resumed_at is None
    return resumed.resumed_at, again == once


class StoppedError(Exception):
    """Stands for a kill, in this process: a training's imports cost more than the training does."""


def stopped_and_whole(
    plan: CompressPlan, store: Store, model: CompressResult, folder: Path, at: int
) -> tuple[int | None, bool]:
    """Stop a plan's first step after ``at`` optimiser steps and run it again, and once from the start.

    Returns:
        Where the second run went on, and whether both ended with the same bytes.
    """
    source = store.open(model.artifact).path
    shape = any_shape(hf.read_json(source / hf.CONFIG))
    task = Task(plan.steps[0], "spec.lean.steps[0]", shape, 0, rows_of(plan, store, model))

    def run(scratch: str, stop: bool) -> tuple[int | None, bytes]:
        target = folder / f"{scratch}-{stop}"
        target.mkdir()

        def progress(_done: float, _total: float, message: str) -> None:
            if stop and message.startswith(f"optimiser step {at}/"):
                raise StoppedError

        place = Place(source, target, folder / scratch, None, "b" * 64, progress)
        outcome = step_of(task.spec, plan.task).run(task, place)
        return outcome.resumed_at, (target / hf.WEIGHTS).read_bytes()

    try:
        run("stopped", True)
    except StoppedError:
        resumed, again = run("stopped", False)
        _, once = run("whole", False)
        return resumed, again == once
    raise AssertionError(f"the training has no optimiser step {at}")
