"""kill -9 both compress Jobs of the quickstart at random moments; hold every result against an unkilled run's.

The quickstart's manifest with less training, so that 20 kills take minutes. Writes docs/results/kill-resume.md;
the exit code is 1 when a digest differs, a finished step ran again, or a training repeated more than one
checkpoint interval. Run: make bench-kill-resume
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from leanmodel_api.manifest import load
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.progress import ProgressLine, parse
from leanmodel_api.resource import LeanModel
from leanmodel_cli.processes import compression_python
from leanmodel_operator.jobs import large_plan, lean_plan
from leanmodel_serving.host.processes import die_with_parent

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "examples" / "quickstart"
TRAINING = "optimiser step "


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
        found: dict[str, tuple[int, int]] = {}
        for line in self.lines:
            if line.message.startswith(TRAINING):
                step = int(line.message.removeprefix(TRAINING).split("/")[0])
                found[line.step] = (found.get(line.step, (step, step))[0], step)
        return found


@dataclass
class Outcome:
    """What the kills of one Job showed."""

    role: str
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


def measure(plan: CompressPlan, start: Path, folder: Path, kills: int, draw: random.Random) -> Outcome:
    """Run a Job once unkilled, then with kills until they are spent, each round from a fresh store."""
    result, quiet = whole(plan, fresh(start, folder / "quiet"), folder)
    outcome = Outcome(plan.role, result.artifact, quiet.seconds)
    print(f"{plan.role}: unkilled {quiet.seconds:.0f} s, {result.artifact}", flush=True)
    spent = 0.0
    while outcome.kills < kills:
        outcome.rounds += 1
        store, earlier = fresh(start, folder / "round"), None
        while True:
            moment = draw.uniform(0.02, 0.7) * quiet.seconds if outcome.kills < kills else None
            made = run(plan, store, folder, moment)
            spent += made.seconds
            if earlier is not None:
                compare(earlier, made, intervals_of(plan), outcome)
            if made.code == 0:
                break
            if made.code != -signal.SIGKILL:
                raise SystemExit(f"a resumed run failed with {made.code}:\n{made.errors}")
            outcome.kills += 1
            last = made.lines[-1]
            outcome.where.append(f"{last.step} {last.percent} %")
            print(f"kill {outcome.kills} at {outcome.where[-1]}, {made.seconds:.1f} s", flush=True)
            earlier = made
        ended = CompressResult.model_validate_json((folder / "result.json").read_text())
        outcome.digests.add(ended.artifact)
    outcome.per_round = spent / outcome.rounds
    return outcome


def shortened() -> LeanModel:
    """Return the quickstart with less training."""
    document = yaml.safe_load((QUICKSTART / "leanmodel.yaml").read_text())
    spec = document["spec"]
    spec["dataSets"][0]["source"]["uri"] = f"file:{QUICKSTART / 'data' / 'sms.tsv'}"
    less = {"maxExamples": 96, "epochs": "3", "batchSize": 8, "checkpointSteps": 3}
    spec["large"]["finetune"].update(less, trainLayers=4)
    # A step's look at the validation part has no checkpoints: kept short, so that kills land in the training.
    spec["dataSets"][0]["split"]["validation"] = "0.005"
    for step in spec["lean"]["steps"]:
        if step["type"] == "Distill":
            step.update(less)
    return load(document)


def markdown(outcomes: list[Outcome]) -> str:
    """Return the results as a page."""
    lines = [
        "# kill -9 of the compress Jobs", "",
        f"{datetime.date.today().isoformat()}, `make bench-kill-resume`, {os.cpu_count()} cores. The quickstart's manifest with less "
        "training (checkpoints every 3 optimiser steps); moments drawn at random, each round from a fresh store and "
        "killed again until it gets through.", "",
        "| Job | kills | rounds | other digests | finished steps that ran again | optimiser steps repeated, at most "
        "| seconds unkilled | seconds a round, kills included |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for found in outcomes:
        lines.append(
            f"| {found.role} | {found.kills} | {found.rounds} | {len(found.digests - {found.digest})} "
            f"| {sum('ran again' in fault for fault in found.faults)} | {found.most_repeated} "
            f"| {found.seconds:.0f} | {found.per_round:.0f} |"
        )
    lines += ["", *(f"Killed in {found.role}: {', '.join(found.where)}." for found in outcomes), ""]
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="in both Jobs together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "kill-resume.md")
    options = parser.parse_args()
    draw, cores = random.Random(options.seed), os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as name:
        folder = Path(name)
        model = shortened()
        plan = large_plan(model, cores, name)
        # The weights are fetched once; the killed Jobs start behind that.
        only_fetch = plan.model_copy(update={"finetune": None})
        whole(only_fetch, folder / "fetched", folder)
        outcomes = [measure(plan, folder / "fetched", folder, options.kills // 2, draw)]
        large, _ = whole(plan, fresh(folder / "fetched", folder / "large"), folder)
        later = lean_plan(model, large, cores, name)
        assert later is not None
        outcomes.append(measure(later, folder / "large", folder, options.kills - options.kills // 2, draw))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(markdown(outcomes))
    for outcome in outcomes:
        for fault in outcome.faults:
            print(f"{outcome.role}: {fault}", file=sys.stderr)
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
