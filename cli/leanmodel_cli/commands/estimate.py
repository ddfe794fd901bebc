"""leanmodel estimate: what a manifest would take, before any of it is done."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

from leanmodel_api.errors import LeanModelError
from leanmodel_api.estimate import RunEstimate, TeacherEstimate
from leanmodel_operator.jobs import large_plan, lean_plan

from ..jobs import store_root
from ..processes import compression_python
from ..runs import read_manifest
from ..table import columns, size

HELP = "say what a manifest would take: parameters, bytes, memory, disk and time of each step; no weights are fetched"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "-f", "--file", type=Path, required=True, metavar="FILE", help="manifest (YAML or JSON)"
    )
    parser.add_argument("--json", action="store_true", help="print the estimate as JSON")


def run(arguments: Namespace) -> int:
    """Estimate the compress Jobs of both models; return 0 when they would run here, 3 when they would be refused."""
    model = read_manifest(arguments.file)
    base_dir, cores = str(arguments.file.resolve().parent), os.cpu_count() or 1
    plans = [large_plan(model, cores, base_dir), lean_plan(model, None, cores, base_dir)]
    with tempfile.TemporaryDirectory(prefix="leanmodel-estimate-") as folder:
        command = [str(compression_python()), "-m", "leanmodel_compression.estimate"]
        for index, plan in enumerate(plans):
            if plan is not None:
                path = Path(folder, f"{index}.json")
                path.write_text(plan.to_json(), encoding="utf-8")
                command += ["--plan", str(path)]
        command += ["--store", str(store_root(model, base_dir))]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3) or not done.stdout:
        words = [line.removeprefix("error: ") for line in done.stderr.splitlines()]
        error = LeanModelError("\n".join(words) or f"the estimate ended with exit code {done.returncode}")
        error.exit_code = done.returncode if done.returncode in (2, 3) else 1
        raise error
    found = RunEstimate.model_validate_json(done.stdout)
    print(done.stdout.strip() if arguments.json else "\n".join(lines(found)))
    for refusal in found.refusals:
        print(f"refused: {refusal}", file=sys.stderr)
    return 3 if found.refusals else 0


def lines(found: RunEstimate) -> list[str]:
    """Return an estimate as a table for people."""
    rows = [["model", "step", "parameters", "bytes", "peak memory", "disk", "about"]]
    rows += [
        [
            step.role.lower(), step.type, f"{step.parameters / 1e6:.1f} M",
            "?" if step.bytes is None else size(step.bytes), size(step.memory_bytes), size(step.disk_bytes),
            duration(step.seconds),
        ]
        for step in found.steps
    ]  # fmt: skip
    rows.append(
        [
            "in all", "", "", "", size(max(step.memory_bytes for step in found.steps)),
            size(sum(step.disk_bytes for step in found.steps)), duration(sum(step.seconds for step in found.steps)),
        ]
    )  # fmt: skip
    limits = f"{size(found.memory_limit)} allowed (spec.jobs.compress.memory), {size(found.memory_free)} free"
    return [
        *columns(rows), "", f"  memory: {limits}; disk: {size(found.disk_free)} free", *map(asked, found.teacher)
    ]  # fmt: skip


def asked(one: TeacherEstimate) -> str:
    """Return what a step would ask of the external teacher, as a line for people."""
    kept = f", {one.answered} more are answered already" if one.answered else ""
    spent = f"; spent so far: {one.spent_calls} calls, ${one.spent_usd}" if one.spent_calls else ""
    return (
        f"  teacher: {one.field} asks {one.model} at {one.base_url} {one.calls} prompts{kept}: about ${one.usd}, "
        f"at most ${one.usd_at_most} (bounds: {one.max_calls} calls, ${one.max_usd}{spent})"
    )


def duration(seconds: float) -> str:
    """Return seconds in words: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
