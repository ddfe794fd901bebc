"""A technique that is not ours: one file and one entry, and it is in the schema, the documents, the plan and a Job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import environment, lean_plan
from safetensors.torch import load_file

from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_store.artifacts import Store

pytestmark = pytest.mark.compression

ROOT = Path(__file__).parents[2]
ENTRY = "[leanmodel.techniques]\nRounding = rounding\n"
ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from leanmodel_api import crd, manifest, reference
from leanmodel_api.errors import ManifestError
from leanmodel_api.plan import CompressPlan
from leanmodel_compression import checks
from families_table import render
spec = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
step = spec["properties"]["lean"]["properties"]["steps"]["items"]
plan = CompressPlan.model_validate_json(sys.argv[2])
try:
    manifest.load({**json.loads(sys.argv[3]), "spec": {"lean": {"steps": [{"type": "Rounding", "bits": 9}]}}})
except ManifestError as error:
    refused = str(error)
print(json.dumps({
    "types": step["properties"]["type"]["enum"], "bits": step["properties"].get("bits"),
    "rules": [rule["message"] for rule in step["x-kubernetes-validations"]],
    "reference": reference.render(), "table": render(), "refused": refused,
    "planned": [[item.step.name, item.field] for item in checks.planned(plan)],
}))
"""


@pytest.fixture
def added(tmp_path: Path) -> Path:
    """The technique as pip would install it: its file, and beside it the entry."""
    folder = tmp_path / "installed"
    (folder / "rounding-1.0.dist-info").mkdir(parents=True)
    shutil.copyfile(ROOT / "tests" / "compression" / "technique" / "rounding.py", folder / "rounding.py")
    (folder / "rounding-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: rounding\nVersion: 1.0\n"
    )
    (folder / "rounding-1.0.dist-info" / "entry_points.txt").write_text(ENTRY)
    return folder


def test_one_file_and_one_entry_are_a_technique_everywhere(
    store: Store, large: CompressResult, data_file: Path, added: Path, tmp_path: Path
) -> None:
    plan = json.loads(lean_plan(large, data_file, [{"type": "Prune", "keepLayers": 2}]).to_json())
    plan["steps"].append({"type": "Rounding", "bits": 3})
    paths = {
        **environment(),
        "PYTHONPATH": os.pathsep.join([environment()["PYTHONPATH"], str(ROOT / "serving"), str(added)]),
    }
    head = json.dumps({"apiVersion": "leanmodel.io/v1alpha1", "kind": "LeanModel", "metadata": {"name": "a"}})
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(ROOT / "tools"), json.dumps(plan), head],
        env=paths, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)
    assert "Rounding" in found["types"] and (found["bits"]["minimum"], found["bits"]["maximum"]) == (1, 7)
    assert any("Rounding" in message for message in found["rules"])
    assert (
        "Rounding" in found["reference"]
        and "Bits of the mantissa that stay. Default 4." in found["reference"]
    )
    heads = next(line for line in found["table"].splitlines() if line.startswith("| family |"))
    assert "| Rounding |" in heads
    assert found["planned"] == [["Prune", "spec.lean.steps[0]"], ["Rounding", "spec.lean.steps[1]"]]
    assert "spec.lean.steps[0].bits" in found["refused"]
    # And the Job does it.
    made = run(plan, store, paths, tmp_path)
    assert [step.type for step in made.steps] == ["Prune", "Rounding"] and made.steps[1].modules_changed == 14
    weights = load_file(str(store.open(made.artifact).path / hf.WEIGHTS))
    bits = weights["model.layers.1.mlp.up_proj.weight"].view(torch.int16)
    assert bool((bits & 0b1111 == 0).all()) and bool((bits & 0b1110000 != 0).any())


def run(plan: dict[str, object], store: Store, paths: dict[str, str], folder: Path) -> CompressResult:
    (folder / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-m", "leanmodel_compression", "--plan", str(folder / "plan.json")]
    command += ["--store", str(store.root), "--result", str(folder / "result.json")]
    done = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return CompressResult.model_validate_json((folder / "result.json").read_text())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FIELDS = 1\n", "FIELDS must be a Part named Rounding"),
        ("from leanmodel_api.base import Part\nFIELDS = Part\n", "FIELDS must be a Part named Rounding"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_technique_is_named(added: Path, text: str, words: str) -> None:
    (added / "rounding.py").write_text(text)
    paths = {**environment(), "PYTHONPATH": os.pathsep.join([environment()["PYTHONPATH"], str(added)])}
    asked = subprocess.run(
        [sys.executable, "-c", "import leanmodel_api.steps"],
        env=paths,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert asked.returncode == 1 and f"leanmodel.techniques Rounding: rounding.{words}" in asked.stderr
