"""Finished proofs, kept in the store: the same plan on the same data is not proven twice."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from leanmodel_api.plan import ProvePlan
from leanmodel_api.report import ProveReport

VERSION = 1
"""Raise it when a change of this package changes what a proof finds."""


def find_report(folder: Path, plan: ProvePlan, data_digest: str) -> ProveReport | None:
    """Return the finished proof of a plan on a data set, with the plan's own steps and search; None without one."""
    try:
        report = ProveReport.model_validate_json(_path(folder, plan, data_digest).read_bytes())
    except (OSError, ValidationError):
        return None
    return report.model_copy(update={"steps": list(plan.steps), "search": plan.search})


def keep_report(folder: Path, plan: ProvePlan, data_digest: str, report: ProveReport) -> None:
    """Keep a finished proof, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, plan, data_digest)
    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    fresh.write_text(report.model_dump_json(by_alias=True))
    os.replace(fresh, path)


def _path(folder: Path, plan: ProvePlan, data_digest: str) -> Path:
    return folder / f"{plan.key()}-{data_digest.removeprefix('sha256:')[:16]}-v{VERSION}.json"
