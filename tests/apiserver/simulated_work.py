"""What simulated Jobs leave: results that fit their plans, artifacts in a folder, a store that is really swept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kube_client import ROOT, Object

from leanmodel_api.plan import CompressPlan, ProvePlan
from leanmodel_operator.cluster import names
from leanmodel_store.artifacts import Store
from leanmodel_store.sweep import main as run_sweep

sys.path.insert(0, str(ROOT / "tests" / "unit" / "operator"))
from test_desired_loop import report, result  # noqa: E402


def made(stage: str, plan: str, verdict: str) -> str:
    """Returns the result that a Job would leave: an artifact named after its plan, or a proof."""
    if stage == "prove":
        asked = ProvePlan.model_validate_json(plan)
        proof = report(verdict).model_copy(update={"large": asked.large, "lean": asked.lean})
        return str(proof.model_dump_json(by_alias=True))
    work = CompressPlan.model_validate_json(plan)
    artifact = f"sha256:{names.digest(work.key(), 64)}"
    return str(result(work.role, "a").model_copy(update={"plan": work.key(), "artifact": artifact}).to_json())


def keep(store: Path, artifact: str) -> None:
    """Puts an artifact of one file into a store, as old as the hills."""
    folder = Store(store).root / "objects" / artifact.removeprefix("sha256:")
    (folder / "files").mkdir(parents=True, exist_ok=True)
    (folder / "files" / "weights.safetensors").write_bytes(b"x")
    (folder / "manifest.json").write_text("{}")
    os.utime(folder / "manifest.json", (0, 0))


def sweep(job: Object, store: Path | None) -> int:
    """Carries out a sweep's command on the folder that stands for the volume; its exit code."""
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:3] == ["python", "-m", "leanmodel_store.sweep"] and command[3:5] == ["--store", "/store"]
    return run_sweep(["--store", str(store), *command[5:]])
