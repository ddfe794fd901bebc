"""kill -9 compress Jobs at random moments; hold every result against an unkilled run's.

Both Jobs of the quickstart, with less training, and each step that takes long by itself, on the first layers of the
quickstart's model. Writes docs/results/kill-resume.md; the exit code is 1 when a digest differs, a finished step or layer
was computed again, or a training repeated more than one checkpoint interval. Run: make bench-kill-resume
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from killing.rounds import Outcome, fresh, measure, whole
from killing.steps import LONG, first_layers

from leanmodel_api.manifest import load
from leanmodel_api.plan import CompressPlan
from leanmodel_api.resource import LeanModel
from leanmodel_operator.jobs import large_plan, lean_plan

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "examples" / "quickstart"


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


def markdown(jobs: list[Outcome], steps: list[Outcome]) -> str:
    """Return the results as a page."""
    kills, rounds = (sum(getattr(one, what) for one in [*jobs, *steps]) for what in ("kills", "rounds"))
    bad = sum(not one.good for one in [*jobs, *steps])
    lines = [
        "# kill -9 of the compress Jobs", "",
        f"{datetime.date.today().isoformat()}, `make bench-kill-resume`, {os.cpu_count()} cores. {kills} kills in {rounds} rounds; "
        f"{bad or 'no'} Job or step ended otherwise than unkilled, or did again what was finished. Moments are drawn at random; each round "
        "begins with a fresh store, and is killed again until it gets through.",
    ]  # fmt: skip
    if jobs:
        lines += [
            "",
            "## Both Jobs of the quickstart, with less training, checkpoints every 3 optimiser steps",
            "",
        ]
        lines += table("Job", jobs)
    if steps:
        lines += [
            "",
            "## Each step that takes long, on the first 4 layers of the quickstart's model, checkpoints every 2 optimiser steps",
            "",
        ]
        lines += table("step", steps)
    return "\n".join([*lines, ""])


def table(what: str, found: list[Outcome]) -> list[str]:
    """Return the rows of one kind, and where each was killed."""
    lines = [
        f"| {what} | kills | rounds | other digests | finished steps or layers computed again | optimiser steps repeated, at most "
        "| seconds unkilled | seconds a round, kills included |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for one in found:
        again = sum("ran again" in fault or "layers again" in fault for fault in one.faults)
        lines.append(
            f"| {one.name} | {one.kills} | {one.rounds} | {len(one.digests - {one.digest})} | {again} | {one.most_repeated} "
            f"| {one.seconds:.0f} | {one.per_round:.0f} |"
        )
    return [*lines, "", *(f"Killed in {one.name}: {', '.join(one.where)}.\n" for one in found if one.where)]


def both_jobs(folder: Path, kills: int, draw: random.Random, cores: int) -> Iterator[Outcome]:
    """Kill the quickstart's two Jobs."""
    model = shortened()
    plan = large_plan(model, cores, str(folder))
    # The weights are fetched once; the killed Jobs start behind that.
    whole(plan.model_copy(update={"finetune": None}), folder / "fetched", folder)
    yield measure("Large", plan, folder / "fetched", folder, kills // 2, draw)
    large, _ = whole(plan, fresh(folder / "fetched", folder / "large"), folder)
    later = lean_plan(model, large, cores, str(folder))
    assert later is not None
    yield measure("Lean", later, folder / "large", folder, kills - kills // 2, draw)


def each_step(
    folder: Path, kills: int, draw: random.Random, cores: int, names: list[str]
) -> Iterator[Outcome]:
    """Kill each step that takes long, so many times each."""
    fetch = large_plan(shortened(), cores, str(folder)).model_copy(update={"finetune": None})
    start = folder / "cut"
    cut, _ = whole(fetch, start, folder)
    base, _ = whole(first_layers(fetch, cut), start, folder)
    plans: dict[str, CompressPlan] = {
        name: make(fetch, base) for name, make in LONG.items() if not names or name in names
    }
    for name, plan in plans.items():
        yield measure(name, plan, start, folder, kills, draw)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="in both Jobs together; 0 leaves them out")
    parser.add_argument("--each", type=int, default=4, help="in each step; 0 leaves them out")
    parser.add_argument(
        "--steps", type=lambda text: text.split(","), default=[], help=f"of {', '.join(LONG)}; default: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of a Job")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "kill-resume.md")
    options = parser.parse_args()
    if unknown := set(options.steps) - set(LONG):
        parser.error(f"--steps: there is no {min(unknown)!r}; there are {', '.join(LONG)}")
    draw, jobs, steps = random.Random(options.seed), list[Outcome](), list[Outcome]()

    def note(found: list[Outcome], outcome: Outcome) -> None:
        found.append(outcome)
        for fault in outcome.faults:
            print(f"{outcome.name}: {fault}", file=sys.stderr)
        options.out.write_text(markdown(jobs, steps))

    with tempfile.TemporaryDirectory(prefix="kill-resume-") as name:
        folder = Path(name)
        for outcome in both_jobs(folder, options.kills, draw, options.threads) if options.kills else ():
            note(jobs, outcome)
        for outcome in (
            each_step(folder, options.each, draw, options.threads, options.steps) if options.each else ()
        ):
            note(steps, outcome)
    return 0 if all(outcome.good for outcome in [*jobs, *steps]) else 1


if __name__ == "__main__":
    sys.exit(main())
