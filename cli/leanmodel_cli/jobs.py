"""How a Job is started as a process: its command line, its key, and its failure in words."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from leanmodel_api.datasets import DataSet
from leanmodel_api.plan import CompressPlan, ProvePlan
from leanmodel_api.resource import LeanModel
from leanmodel_api.sources import Source, file_path
from leanmodel_operator.jobs import lean_plan

from .processes import compression_python
from .provider_key import teacher_key_options
from .runs import Run, file_digest, home, write_atomic

_TAIL_BYTES = 65536


def store_root(model: LeanModel, base_dir: str) -> Path:
    """Return the folder of the store: the manifest's, or the one under the home folder."""
    if model.spec.store is None:
        return home() / "store"
    return Path(base_dir, file_path(model.spec.store.uri))


def inputs_key(plan: CompressPlan | ProvePlan, data_sets: Sequence[DataSet], base_dir: str) -> str:
    """Return a Job's key: the plan's, and the contents of the files that it names.

    A ``file:`` source may change under an equal plan; its digest tells.
    """
    sources: list[Source] = [data.source for data in data_sets]
    if isinstance(plan, CompressPlan) and plan.source is not None:
        sources.append(plan.source)
    digest = hashlib.sha256(plan.key().encode())
    for source in sources:
        if source.scheme == "file":
            path = Path(base_dir, file_path(source.uri))
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    digest.update(f"{file.relative_to(path.parent)} {file_digest(file)}\n".encode())
    return digest.hexdigest()[:16]


def early_check(run: Run, model: LeanModel, plan: CompressPlan, cores: int) -> Path | None:
    """Write the plan of the lean steps (or of their search) for the large model's Job to check before its work, and return where it is.

    A group size that does not divide is then said at once, not after the fine-tuning.
    """
    if plan.role != "Large" or model.spec.lean is None or model.spec.lean.source is not None:
        return None
    later = lean_plan(model, None, cores, plan.base_dir)
    if later is None:
        return None
    path = run.plan("lean-check")
    write_atomic(path, later.to_json(indent=2))
    return path


def compress_command(
    run: Run, plan: CompressPlan, key: str, store: Path, also_check: Path | None = None
) -> list[str]:
    """Return the command line of a compress Job."""
    also = ["--also-check", str(also_check)] if also_check is not None else []
    return [
        str(compression_python()), "-m", "leanmodel_compression", "--plan", str(run.plan(key)),
        "--store", str(store), "--result", str(run.result(key)), *also,
        *teacher_key_options(plan),
    ]  # fmt: skip


def prove_command(run: Run, key: str, store: Path, endpoint: str) -> list[str]:
    """Return the command line of a prove Job."""
    return [
        sys.executable, "-m", "leanmodel_evaluation", "--plan", str(run.plan(key)), "--store", str(store),
        "--endpoint", endpoint, "--token-file", str(run.token), "--result", str(run.result(key)),
        "--html", str(run.result(key).with_suffix(".html")),
    ]  # fmt: skip


def describe_failure(job: str, code: int, log: Path) -> str:
    """Return why a Job ended badly, in words: its own last error, or what its exit code means."""
    if code == -9:
        return f"{job} was killed (SIGKILL), most likely for memory: lower batchSize or maxLength, or give it more memory; log: {log}"
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    said: list[str] = []
    for line in reversed(lines):
        if line.startswith("error: "):
            said = [line.removeprefix("error: "), *said]
            break
        if line.startswith(("leanmodel-progress ", "Traceback")):
            break
        said = [line, *said]
    else:
        said = said[-1:]
    words = "\n".join(part for part in said[-12:] if part.strip()) or f"ended with exit code {code}"
    return f"{job}: {words}" if code in (2, 3) else f"{job}: {words}; log: {log}"
