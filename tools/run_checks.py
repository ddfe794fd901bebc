"""Runs make targets one after the other, stops at the first that fails, and sums up.

Usage: run_checks.py TARGET... . Each target's output is passed on as it comes; pytest's closing lines are
kept for the summary, which ends with one line over all of them. The exit code is that of the first target
that failed, or 1 if no test ran at all.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

CLOSING = re.compile(r"^=* ?(?=.*\b(?:passed|failed|error|errors|skipped|no tests ran)\b.* in [\d.:]+)")
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)\b")


@dataclass
class Stage:
    """What one target did: its exit code, its seconds, and pytest's closing line with its counts."""

    target: str
    code: int = 0
    seconds: float = 0.0
    closing: str = ""
    counts: Counter[str] = field(default_factory=Counter)


def run_stage(target: str) -> Stage:
    """Runs one make target, passing its output on line by line."""
    stage = Stage(target)
    started = time.monotonic()
    print(f"\n### make {target}", flush=True)
    with subprocess.Popen(
        ["make", target],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            plain = re.sub(r"\x1b\[[\d;]*m", "", line).strip()
            if CLOSING.match(plain):
                stage.closing = plain.strip("= ")
    stage.code = process.returncode
    stage.seconds = time.monotonic() - started
    for number, outcome in COUNT.findall(stage.closing):
        stage.counts[outcome.rstrip("s") if outcome.startswith("error") else outcome] += int(number)
    return stage


def summarise(stages: list[Stage], targets: list[str]) -> str:
    """Returns the summary: a line per target, and the closing line over all tests."""
    total: Counter[str] = Counter()
    lines = ["", "### summary"]
    for stage in stages:
        total += stage.counts
        word = "ok" if stage.code == 0 else f"FAILED ({stage.code})"
        lines.append(f"{stage.target:<18} {word:<12} {stage.seconds:7.1f} s  {stage.closing}".rstrip())
    lines += [f"{target:<18} not run" for target in targets[len(stages) :]]
    failed = total["failed"] + total["error"]
    lines += ["", f"{total['passed']} passed, {failed} failed, {total['skipped']} skipped"]
    return "\n".join(lines)


def main(targets: list[str]) -> int:
    """Runs the targets; returns the exit code."""
    stages: list[Stage] = []
    for target in targets:
        stages.append(run_stage(target))
        if stages[-1].code != 0:
            break
    print(summarise(stages, targets), flush=True)
    if stages[-1].code != 0:
        return stages[-1].code
    return 0 if any(stage.counts["passed"] for stage in stages) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
