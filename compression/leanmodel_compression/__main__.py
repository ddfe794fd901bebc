"""Entry point: ``python -m leanmodel_compression --plan plan.json --store DIR --result result.json``.

Exit codes: 0 done, 1 a defect, 2 the input is at fault, 3 refused for want of memory or disk, 130 and 143
after SIGINT and SIGTERM. Standard output carries progress lines, standard error messages.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from pydantic import ValidationError

from leanmodel_api.errors import LeanModelError
from leanmodel_api.jobs import Device
from leanmodel_api.plan import CompressPlan


def main(arguments: list[str] | None = None) -> int:
    """Run one compress Job and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m leanmodel_compression", description="Run one compress Job."
    )
    parser.add_argument("--plan", required=True, type=Path, help="plan to run (JSON)")
    parser.add_argument("--store", required=True, type=Path, help="folder of the store")
    parser.add_argument("--result", required=True, type=Path, help="where the result goes (JSON)")
    parser.add_argument(
        "--also-check", action="append", default=[], type=Path, metavar="PLAN",
        help="a later plan whose group sizes, layers and data are checked before this one's work",
    )  # fmt: skip
    parser.add_argument(
        "--teacher-key-file",
        type=Path,
        metavar="FILE",
        help="file with the key of the plan's external teacher",
    )
    parser.add_argument(
        "--progress-seconds", type=float, metavar="SECONDS",
        help="lines of a running step come at most this often (default 0.5; 0: one for each unit of work)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    leave_on_signals()
    try:
        plan = read_plan(options.plan)
        also = [read_plan(path) for path in options.also_check]
    except (OSError, ValueError) as error:
        print(f"plan: {_plain(error)}", file=sys.stderr)
        return 2
    settle(plan.limits.threads, plan.limits.device)
    return run(plan, also, options.store, options.result, options.teacher_key_file, options.progress_seconds)


def read_plan(path: Path) -> CompressPlan:
    """Read a plan; a ValueError says what is wrong with it."""
    return CompressPlan.model_validate_json(path.read_text(encoding="utf-8"))


def run(
    plan: CompressPlan,
    also: list[CompressPlan],
    store: Path,
    result: Path,
    teacher_key: Path | None = None,
    progress_seconds: float | None = None,
) -> int:
    """Run the Job and write its result by one rename; errors become messages and exit codes."""
    # Late, so that settle() comes before torch.
    from leanmodel_store.artifacts import Store

    from . import devices
    from .job import Job
    from .progress import INTERVAL_SECONDS, Reporter

    interval = INTERVAL_SECONDS if progress_seconds is None else progress_seconds
    reporter = Reporter("compress-large" if plan.role == "Large" else "compress-lean", interval=interval)
    try:
        kept = Store(store)
        with kept.in_use():
            made = Job(plan, kept, reporter, also, teacher_key).run()
    except LeanModelError as error:
        reporter.end("failed", str(error))
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        reporter.end("failed", "out of memory")
        print(
            f"error: spec.jobs.compress.memory: out of memory ({error}); write more",
            file=sys.stderr,
        )
        return 3
    except RuntimeError as error:
        words = devices.full(error)
        if words is None:
            raise
        reporter.end("failed", "out of the GPU's memory")
        print(f"error: {words}", file=sys.stderr)
        return 3
    result.parent.mkdir(parents=True, exist_ok=True)
    building = result.with_name(f".{result.name}.{os.getpid()}")
    building.write_text(made.to_json(indent=2) + "\n", encoding="utf-8")
    building.rename(result)
    return 0


def settle(threads: int, device: Device = "CPU") -> None:
    """Fix what results depend on, before torch is imported: threads, code paths, randomness, and whether GPUs are seen.

    The number of threads is part of the arithmetic (it decides how sums are split), so it comes from the plan and
    never from the machine's load.
    """
    if device == "CPU":
        # Libraries that look for a GPU by themselves find none either.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:
        # Else products of matrices on a GPU may differ from run to run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.update(
        OMP_DYNAMIC="FALSE",
        # Threads that wait sleep: spinning takes the core from whoever shares it.
        OMP_WAIT_POLICY="PASSIVE",
        GOMP_SPINCOUNT="0",
        MKL_DYNAMIC="FALSE",
        # One code path whatever a buffer's address: resumed and unkilled runs allocate differently.
        MKL_CBWR=os.environ.get("MKL_CBWR", "AUTO"),
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="false",
        TRANSFORMERS_VERBOSITY="error",
        TQDM_DISABLE="1",
    )
    import torch

    gpu = device != "CPU" and torch.cuda.is_available()
    if gpu:
        # compressed-tensors and llmcompressor compute in torch: their own kernels want a compiler, which images lack.
        os.environ["CT_ENFORCE_EAGER"] = "1"
    torch.set_num_threads(threads)
    # A few operators have no deterministic form on a GPU: there they are let pass.
    torch.use_deterministic_algorithms(True, warn_only=gpu)
    torch.manual_seed(0)


def leave_on_signals() -> None:
    """End within moments of SIGTERM or SIGINT, even inside a long computation.

    The interpreter's handlers wait for the running operation; the wake-up descriptor does not, so a thread
    reads it and leaves. Nothing needs cleaning: whatever is not committed is not visible, and checkpoints
    are whole or absent.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_leave, args=(reader,), name="signals", daemon=True).start()


def _leave(reader: int) -> None:
    while True:
        number = os.read(reader, 1)[0]
        if number in (signal.SIGTERM, signal.SIGINT):
            os.write(2, f"ended by {signal.Signals(number).name}; what is finished is kept\n".encode())
            os._exit(128 + number)


def _plain(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
        )
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
