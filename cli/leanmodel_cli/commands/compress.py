"""leanmodel compress: make the artifacts of a manifest without serving anything."""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from leanmodel_api.errors import LeanModelError
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.progress import parse
from leanmodel_api.steps import GGUF_FILE
from leanmodel_operator.jobs import large_plan, lean_plan
from leanmodel_store.artifacts import Store

from ..jobs import compress_command, describe_failure, early_check, inputs_key, store_root
from ..processes import Child
from ..provider_key import check_teacher_key
from ..runs import Run, read_manifest, write_atomic

HELP = "fetch, fine-tune and compress as the manifest says, and stop there"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "-f", "--file", type=Path, required=True, metavar="FILE", help="manifest (YAML or JSON)"
    )
    parser.add_argument(
        "--progress",
        choices=("text", "json"),
        default="text",
        help="json prints the machine-readable progress lines (default: text)",
    )


def run(arguments: Namespace) -> int:
    """Run the compress Jobs of both models; return 0 when both artifacts are in the store."""
    model = read_manifest(arguments.file)
    check_teacher_key(model)
    base_dir = str(arguments.file.resolve().parent)
    run = Run.of(model.metadata.name, model.metadata.namespace)
    cores = os.cpu_count() or 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    store = store_root(model, base_dir)
    plan = large_plan(model, cores, base_dir)
    large = run_job(run, plan, store, arguments.progress, early_check(run, model, plan, cores))
    print(f"large: {large.artifact} ({large.bytes / 1e6:.1f} MB)")
    later = lean_plan(model, large, cores, base_dir)
    if later is not None:
        lean = run_job(run, later, store, arguments.progress)
        for line in said(lean, large, Store(store).open(lean.artifact).path):
            print(line)
    return 0


def said(lean: CompressResult, large: CompressResult, folder: Path) -> list[str]:
    """Return what a person is told of a lean model in a folder of the store.

    What is made for other machines is fetched by hand, so its place is said, too.
    """
    share = f"{lean.bytes / large.bytes:.1%} of the large one's bytes"
    lines = [f"lean:  {lean.artifact} ({lean.bytes / 1e6:.1f} MB, {share})"]
    edge = folder / GGUF_FILE
    if edge.exists():
        lines.append(f"GGUF:  {edge} ({edge.stat().st_size / 1e6:.1f} MB)")
    return lines


def run_job(
    run: Run, plan: CompressPlan, store: Path, progress: str, also_check: Path | None = None
) -> CompressResult:
    """Run one compress Job in the foreground and return its result.

    Raises:
        LeanModelError: the Job failed; the message is the Job's own, the exit code too.
    """
    key = inputs_key(plan, [*plan.data_sets], plan.base_dir)
    write_atomic(run.plan(key), plan.to_json(indent=2))
    seen = ""

    def show(line: str) -> None:
        nonlocal seen
        said = parse(line)
        if progress == "json" and said is not None:
            print(line, flush=True)
        elif said is not None and (text := f"{said.step} {said.state}") != seen:
            seen = text
            print(
                f"  {said.percent:3d}%  {said.step} {said.state} {said.message}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    log = run.log(f"compress-{plan.role.lower()}")
    child = Child(compress_command(run, plan, key, store, also_check), log, show)
    try:
        code = child.process.wait()
        child.poll()
    finally:
        child.end(grace_seconds=5)
    if code != 0:
        error = LeanModelError(describe_failure(f"compress-{plan.role.lower()}", code, log))
        error.exit_code = code if code in (2, 3) else 1
        raise error
    return CompressResult.model_validate_json(run.result(key).read_text())
