"""Rounds of kills: a Job is killed at random moments until it gets through, and held against an unkilled run."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.progress import ProgressLine, parse
from leanmodel_cli.processes import compression_python
from leanmodel_serving.host.processes import die_with_parent

TRAINED, LAYER = re.compile(r"optimiser step (\d+)/"), re.compile(r"layer (\d+)/")
"""How a step tells what it has finished: optimiser steps, or layers, of which each is kept as it is done."""


@dataclass
class Run:
    """One run of a Job: its exit code, its progress, seconds since the first step began."""

    code: int = 0
    seconds: float = 0.0
    lines: list[ProgressLine] = field(default_factory=list)
    errors: str = ""

    def steps(self, *states: str) -> set[str]:
        """Return the steps that were ever in one of the states."""
        return {line.step for line in self.lines if line.state in states}

    def trained(self) -> dict[str, tuple[int, int]]:
        """Return the first and the last optimiser step that each training told of."""
        return self._told(TRAINED)

    def layers(self) -> dict[str, int]:
        """Return how many layers each calibration had finished in the end."""
        return {step: last for step, (_, last) in self._told(LAYER).items()}

    def _told(self, pattern: re.Pattern[str]) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for line in self.lines:
            if told := pattern.match(line.message):
                number = int(told[1])
                found[line.step] = (found.get(line.step, (number, number))[0], number)
        return found


@dataclass
class Outcome:
    """What the kills of one Job, or step, showed."""

    name: str
    digest: str
    seconds: float
    per_round: float = 0.0
    kills: int = 0
    rounds: int = 0
    where: list[str] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    most_repeated: int = 0

    @property
    def good(self) -> bool:
        """Whether every round ended with the unkilled run's digest and nothing was done twice."""
        return self.digests == {self.digest} and not self.faults


def run(plan: CompressPlan, store: Path, folder: Path, kill_after: float | None) -> Run:
    """Run the Job; kill it so many seconds after its first step began, or leave it alone."""
    written = folder / "plan.json"
    written.write_text(plan.to_json())
    command = [str(compression_python()), "-m", "leanmodel_compression", "--plan", str(written)]
    made = Run()
    parent = os.getpid()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, "--store", str(store), "--result", str(folder / "result.json")],
            stdout=subprocess.PIPE, stderr=errors, text=True, preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent),
        )  # fmt: skip
        timer: threading.Timer | None = None
        began = time.monotonic()
        assert process.stdout is not None
        for text in process.stdout:
            line = parse(text)
            if line is None:
                continue
            made.lines.append(line)
            if line.state == "started" and timer is None and kill_after is not None:
                began = time.monotonic()
                timer = threading.Timer(kill_after, process.send_signal, (signal.SIGKILL,))
                timer.start()
        made.code = process.wait()
        made.seconds = time.monotonic() - began
        if timer is not None:
            timer.cancel()
        errors.seek(0)
        made.errors = errors.read()[-2000:]
    return made


def compare(earlier: Run, later: Run, intervals: dict[str, int], outcome: Outcome) -> None:
    """Note what the later run did again although the earlier one had it."""
    done = earlier.steps("finished", "cached")
    again = done & later.steps("running", "finished")
    outcome.faults += [f"round {outcome.rounds}: {step} ran again" for step in sorted(again)]
    before, after = earlier.trained(), later.trained()
    for step in sorted(before.keys() & after.keys() - done):
        repeated = before[step][1] - after[step][0] + 1
        outcome.most_repeated = max(outcome.most_repeated, repeated)
        if repeated > intervals[step]:
            outcome.faults.append(f"round {outcome.rounds}: {step} repeated {repeated} optimiser steps")


def compare_layers(killed: list[Run], made: CompressResult, outcome: Outcome) -> None:
    """Note the layers that a killed run had finished and that were computed again all the same."""
    for figure in made.steps:
        name = figure.type.lower()
        told = max((one.layers().get(name, 0) for one in killed), default=0)
        repeated = 0 if figure.cached else told - (figure.resumed_at or 0)
        if repeated > 0:
            outcome.faults.append(f"round {outcome.rounds}: {name} computed {repeated} finished layers again")


def intervals_of(plan: CompressPlan) -> dict[str, int]:
    """Return the checkpoint interval of each kind of training step."""
    found = {type(step).__name__.lower(): getattr(step, "checkpoint_steps", 0) for step in plan.steps}
    if plan.finetune is not None:
        found["finetune"] = plan.finetune.checkpoint_steps
    return found


def fresh(start: Path, folder: Path) -> Path:
    """Return a new store that holds what ``start`` holds (hard links)."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start, folder, copy_function=os.link)
    return folder


def whole(plan: CompressPlan, store: Path, folder: Path) -> tuple[CompressResult, Run]:
    """Run a Job to its end."""
    made = run(plan, store, folder, None)
    if made.code != 0:
        raise SystemExit(f"the unkilled run failed with {made.code}:\n{made.errors}")
    return CompressResult.model_validate_json((folder / "result.json").read_text()), made


def measure(
    name: str, plan: CompressPlan, start: Path, folder: Path, kills: int, draw: random.Random
) -> Outcome:
    """Run a Job once unkilled, then with kills until they are spent, each round from a fresh store.

    Raises:
        SystemExit: a run failed that was not killed.
    """
    result, quiet = whole(plan, fresh(start, folder / "quiet"), folder)
    outcome = Outcome(name, result.artifact, quiet.seconds)
    print(f"{name}: unkilled {quiet.seconds:.0f} s, {result.artifact}", flush=True)
    spent = 0.0
    while outcome.kills < kills:
        outcome.rounds += 1
        store, killed = fresh(start, folder / "round"), list[Run]()
        while True:
            moment = draw.uniform(0.02, 0.7) * quiet.seconds if outcome.kills < kills else None
            made = run(plan, store, folder, moment)
            spent += made.seconds
            if killed:
                compare(killed[-1], made, intervals_of(plan), outcome)
            if made.code == 0:
                break
            if made.code != -signal.SIGKILL:
                raise SystemExit(f"a resumed run failed with {made.code}:\n{made.errors}")
            outcome.kills += 1
            last = made.lines[-1]
            outcome.where.append(f"{last.step} {last.percent} %")
            print(f"kill {outcome.kills} at {outcome.where[-1]}, {made.seconds:.1f} s", flush=True)
            killed.append(made)
        ended = CompressResult.model_validate_json((folder / "result.json").read_text())
        outcome.digests.add(ended.artifact)
        compare_layers(killed, ended, outcome)
    outcome.per_round = spent / outcome.rounds
    return outcome
