"""Every row of the table of families, from a manifest through `leanmodel up` to a request that the lean model answers.

The architecture, the steps and the engines are real; the weights are small, random and briefly trained.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_support import Cli, processes_of, wait_until
from families_up import CLASSIFY, EMBED, LINEAR, STUDENT, Case, case, manifest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from families_table import families  # noqa: E402

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

CASES = [*(case(family, task, decoder) for family, task, _, decoder in families()), LINEAR, STUDENT]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    named = os.environ.get("LEANMODEL_COMPRESSION_PYTHON")
    python = named or str(Path(sys.prefix).parent / ".venv-compression" / "bin" / "python")
    subprocess.run([python, str(Path(__file__).parent / "make_small_models.py"), str(folder)], check=True)
    return folder


def ask(said: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Run the command that `up` prints, and return the answer's headers and its body."""
    (line,) = (line for line in said.splitlines() if line.strip().startswith("curl "))
    answer = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=120, check=True).stdout
    head, _, body = answer.replace("\r\n", "\n").partition("\n\n")
    first, *fields = head.splitlines()
    assert " 200" in first, answer
    headers = dict(field.lower().split(": ", 1) for field in fields)
    return headers, json.loads(body)


@pytest.mark.parametrize("family", CASES, ids=lambda one: one.name)
def test_a_family_goes_from_its_manifest_to_an_answered_request(
    family: Case, models: Path, cli: Cli, free_port: Callable[[], int], tmp_path: Path
) -> None:
    assert (models / family.folder).exists(), f"make_small_models.py makes no {family.folder} yet"
    path = tmp_path / "leanmodel.yaml"
    path.write_text(yaml.safe_dump(manifest(family, models)))
    done = cli.run("up", "-f", str(path), "--detach", "--port", str(free_port()), timeout=840)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        status = json.loads(cli.run("status", family.name, "-o", "json").stdout)["status"]
        conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
        wanted = ("Compressed", "Proven", "Serving", "Ready")
        assert {name: conditions[name] for name in wanted} == dict.fromkeys(wanted, "True")
        # The large model has answered, too: the proof holds the lean one against it.
        report = json.loads(cli.run("report", family.name, "-o", "json").stdout)
        assert {"large", "lean"} <= {model["name"] for model in report["models"]}
        headers, body = ask(done.stdout)
        assert headers["x-leanmodel-route"] == "lean" and body["model"].startswith("lean-")
        said(family, body)
    finally:
        assert cli.run("down", family.name).returncode == 0
        wait_until(lambda: not processes_of(cli.home), 30, "the end of all processes")


def test_what_a_family_has_not_is_refused_before_any_work(
    models: Path, cli: Cli, free_port: Callable[[], int], tmp_path: Path
) -> None:
    """The lean model's steps are looked at before the large one is fine-tuned."""
    gpt2 = next(one for one in CASES if one.family == "GPT-2")
    document = manifest(gpt2, models)
    document["metadata"]["name"] = "refused"
    document["spec"]["lean"]["steps"] = [{"type": "Quantize", "scheme": "W8A8"}]
    path = tmp_path / "leanmodel.yaml"
    path.write_text(yaml.safe_dump(document))
    done = cli.run("up", "-f", str(path), "--detach", "--port", str(free_port()), timeout=300)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "spec.lean.steps[0].type: Quantize of a GPT-2: its layers are Conv1D" in done.stderr
    assert "{type: Export, format: GGUF, precision: Int8}" in done.stderr
    assert "finetune" not in done.stdout + done.stderr
    wait_until(lambda: not processes_of(cli.home), 30, "the end of all processes")


def said(family: Case, body: dict[str, Any]) -> None:
    """Hold an answer against what its task promises."""
    if family.task == CLASSIFY:
        (item,) = body["data"]
        assert item["label"] in ("ham", "spam") and sum(item["probs"]) == pytest.approx(1)
    elif family.task == EMBED:
        (item,) = body["data"]
        vector = item["embedding"]
        assert len(vector) == 32 and math.hypot(*vector) == pytest.approx(1, abs=1e-4)
    else:
        (choice,) = body["choices"]
        text = choice["text"] if family.example == "gpt2" else choice["message"]["content"]
        # Weights that know little may say what no letter stands for.
        assert isinstance(text, str) and body["usage"]["completion_tokens"] > 0
