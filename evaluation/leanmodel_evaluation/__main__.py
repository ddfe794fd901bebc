"""``python -m leanmodel_evaluation``: the prove Job.

Exit codes: 0 the proof was done, whatever its verdict; 2 bad input; 1 crash or an endpoint that stopped
answering (start it again: nothing answered is asked twice); 130 and 143 on SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pydantic import ValidationError

from leanmodel_api.errors import InputError, LeanModelError, one
from leanmodel_api.plan import ProvePlan
from leanmodel_api.report import ProveReport
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store

from .kept import find_report, keep_report
from .prove import Wiring, prove
from .report import render


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the Job and return its exit code."""
    options = _parser().parse_args(arguments)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with Store(options.store).in_use():
            run(options)
    except LeanModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def run(options: argparse.Namespace) -> ProveReport:
    """Prove, or find the same proof in the store, and write report and page."""
    plan = read_plan(options.plan)
    wiring = Wiring(options.store, options.endpoint, read_token(options.token_file))
    data = datasets.load(plan.data_set, Path(plan.base_dir), Store(options.store))
    report = None if options.fresh else find_report(options.store / "proofs", plan, data.digest)
    if report is None:
        report = prove(plan, wiring, data)
        keep_report(options.store / "proofs", plan, data.digest, report)
    else:
        print(f"found the proof of {plan.lean.name} in the store, made {report.created}")
    write(options.result, report.model_dump_json(by_alias=True, indent=1) + "\n")
    if options.html is not None:
        write(options.html, render(report))
    print(f"{report.verdict}: {report.reason}")
    return report


def read_plan(path: Path) -> ProvePlan:
    """Return the plan in a file.

    Raises:
        InputError: there is no such file, or it is no plan.
    """
    try:
        return ProvePlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise one(
            InputError, "--plan", f"cannot read {path.name} ({error.strerror})", "give a prove plan"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(place) for place in first["loc"]) or "(whole)"
        raise one(
            InputError, f"--plan: {field}", first["msg"], "give a prove plan of this version"
        ) from error


def read_token(path: Path | None) -> str:
    """Return the internal route's token, or an empty one without a file.

    Raises:
        InputError: the file cannot be read, or what it holds cannot be a token.
    """
    if path is None:
        return ""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise one(
            InputError, "--token-file", f"cannot read {path.name}", "give the file of the router's token"
        ) from error
    if not token or not token.isascii() or any(character.isspace() for character in token):
        raise one(InputError, "--token-file", "the file holds no token", "give one line of printable ASCII")
    return token


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End on SIGTERM as the shell expects; what was answered is in the store."""
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m leanmodel_evaluation", description="Prove a lean model.")
    parser.add_argument("--plan", type=Path, required=True, help="ProvePlan as JSON")
    parser.add_argument("--store", type=Path, required=True, help="root of the store")
    parser.add_argument(
        "--endpoint", required=True, help="address of the router, such as http://127.0.0.1:8000"
    )
    parser.add_argument("--token-file", type=Path, help="file with the token of the router's internal route")
    parser.add_argument("--result", type=Path, required=True, help="where the ProveReport goes, as JSON")
    parser.add_argument("--html", type=Path, help="where the page for people goes")
    parser.add_argument(
        "--fresh", action="store_true", help="measure again even if this proof is in the store"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
