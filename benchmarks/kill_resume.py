"""kill -9 the compress Job many times at random moments and hold its result against an unkilled run's.

Usage: kill_resume.py --plan plan.json [--kills 20] [--seed N] [--store DIR] [--keep]. The plan's base and
teacher, where it has any, must be in --store, which is read and never written. Prints one line per run and
a JSON summary; the exit code is 1 when a digest differs, a finished step ran again, or a training repeated
more than one checkpoint interval.
"""

from __future__ import annotations

import argparse
import json
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
from typing import Any

from leanmodel_api.plan import CompressPlan
from leanmodel_api.progress import ProgressLine, parse

TRAINING = "optimiser step "


@dataclass
class Run:
    """One run of the Job: its exit code, its progress, seconds since the first step began."""

    code: int = 0
    seconds: float = 0.0
    lines: list[ProgressLine] = field(default_factory=list)
    errors: str = ""

    def steps(self, *states: str) -> set[str]:
        """Return the steps that were ever in one of the states."""
        return {line.step for line in self.lines if line.state in states}

    def trained(self) -> dict[str, int]:
        """Return the last optimiser step that each training told of."""
        found = {}
        for line in self.lines:
            if line.message.startswith(TRAINING):
                found[line.step] = int(line.message.removeprefix(TRAINING).split("/")[0])
        return found

    def resumed(self) -> dict[str, int]:
        """Return the first optimiser step that each training told of."""
        found: dict[str, int] = {}
        for line in self.lines:
            if line.message.startswith(TRAINING):
                found.setdefault(line.step, int(line.message.removeprefix(TRAINING).split("/")[0]))
        return found


def run(plan: Path, store: Path, result: Path, kill_after: float | None) -> Run:
    """Run the Job; kill it so many seconds after its first step began, or leave it alone."""
    command = [sys.executable, "-m", "leanmodel_compression", "--plan", str(plan), "--store", str(store)]
    made = Run()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, "--result", str(result)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        timer: threading.Timer | None = None
        began = time.monotonic()
        assert process.stdout is not None
        for text in process.stdout:
            line = parse(text)
            if line is None:
                continue
            made.lines.append(line)
            if line.state == "started" and timer is None:
                began = time.monotonic()
                if kill_after is not None:
                    timer = threading.Timer(kill_after, process.send_signal, (signal.SIGKILL,))
                    timer.start()
        made.code = process.wait()
        made.seconds = time.monotonic() - began
        if timer is not None:
            timer.cancel()
        errors.seek(0)
        made.errors = errors.read()[-2000:]
    return made


def faults(earlier: Run, later: Run, intervals: dict[str, int]) -> list[str]:
    """Return what the later run did again although the earlier one had it."""
    done = earlier.steps("finished", "cached")
    found = [f"{step} ran again" for step in sorted(done & later.steps("running", "finished"))]
    before, after = earlier.trained(), later.resumed()
    for step in sorted(before.keys() & after.keys() - done):
        repeated = before[step] - after[step] + 1
        if repeated > intervals.get(step, 0):
            found.append(f"{step} repeated {repeated} optimiser steps")
    return found


def intervals_of(plan: CompressPlan) -> dict[str, int]:
    """Return the checkpoint interval of each kind of training step."""
    found = {type(step).__name__.lower(): getattr(step, "checkpoint_steps", 0) for step in plan.steps}
    if plan.finetune is not None:
        found["finetune"] = plan.finetune.checkpoint_steps
    return found


def prepare(given: Path | None, folder: Path) -> Path:
    """Return a store with the given one's artifacts (hard links) and none of its steps' keys but sources'."""
    store = folder / "store"
    if given is not None:
        shutil.copytree(given / "objects", store / "objects", copy_function=os.link)
        (store / "keys").mkdir()
        for path in (given / "keys").glob("source-*"):
            shutil.copyfile(path, store / "keys" / path.name)
    return store


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the stores behind")
    options = parser.parse_args()
    plan = CompressPlan.model_validate_json(options.plan.read_text())
    folder = Path(tempfile.mkdtemp(prefix="kill-resume-"))
    try:
        summary = measure(options, plan, folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(summary, indent=2))
    return 0 if summary["sameDigest"] and not summary["faults"] else 1


def measure(options: argparse.Namespace, plan: CompressPlan, folder: Path) -> dict[str, Any]:
    """Run once unkilled, then with kills until they are spent, and compare."""
    quiet = run(options.plan, prepare(options.store, folder / "quiet"), folder / "quiet.json", None)
    if quiet.code != 0:
        raise SystemExit(f"the unkilled run failed with {quiet.code}:\n{quiet.errors}")
    wanted = json.loads((folder / "quiet.json").read_text())["artifact"]
    print(f"unkilled: {quiet.seconds:.0f} s, {wanted}", flush=True)
    draw, killed, found, digests = random.Random(options.seed), 0, [], set()
    rounds, repeated = 0, 0.0
    while killed < options.kills:
        # A round is a fresh store, killed again and again until it gets through; then the next one.
        rounds += 1
        store, earlier = prepare(options.store, folder / f"round-{rounds}"), None
        while True:
            left = options.kills - killed
            moment = draw.uniform(0.02, 0.7) * quiet.seconds if left else None
            made = run(options.plan, store, folder / f"round-{rounds}.json", moment)
            repeated += made.seconds
            if earlier is not None:
                found += [f"round {rounds}: {text}" for text in faults(earlier, made, intervals_of(plan))]
            if made.code == -signal.SIGKILL:
                killed += 1
                last = made.lines[-1]
                print(f"kill {killed} at {last.step} {last.percent} %, {made.seconds:.1f} s", flush=True)
                earlier = made
                continue
            if made.code != 0:
                raise SystemExit(f"a resumed run failed with {made.code}:\n{made.errors}")
            digests.add(json.loads((folder / f"round-{rounds}.json").read_text())["artifact"])
            break
        shutil.rmtree(folder / f"round-{rounds}", ignore_errors=True)
    return {
        "kills": killed, "rounds": rounds, "digest": wanted, "sameDigest": digests == {wanted}, "faults": found,
        "secondsUnkilled": round(quiet.seconds, 1), "secondsPerRound": round(repeated / rounds, 1),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
