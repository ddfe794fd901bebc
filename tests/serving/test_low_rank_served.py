"""Low-rank models in vLLM by our plugin: the same log-probs as transformers, for every family, without remote code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leanmodel_api.low_rank import FAMILIES

pytestmark = pytest.mark.long

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("low-rank")
    named = os.environ.get("LEANMODEL_COMPRESSION_PYTHON")
    python = named or str(Path(sys.prefix).parent / ".venv-compression" / "bin" / "python")
    subprocess.run([python, str(HERE / "make_low_rank.py"), str(place)], check=True)
    subprocess.run([sys.executable, str(HERE / "ask_vllm.py"), str(place)], check=True)
    return place


@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_says_what_transformers_says(folder: Path, family: str) -> None:
    expected = json.loads((folder / family / "expected.json").read_text())
    found = json.loads((folder / "answers.json").read_text())[family]
    assert found["logprobs"] == pytest.approx(expected["logprobs"], abs=1e-3)
    assert found["next"] == expected["next"]
    # Not the whole model by another name.
    assert max(abs(a - b) for a, b in zip(found["logprobs"], expected["whole"], strict=True)) > 0.05
