"""Weights in 8 bits in vLLM by our plugin say what transformers says: linear layers, and token tables with and without a head of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("eight-bits")
    named = os.environ.get("LEANMODEL_COMPRESSION_PYTHON")
    python = named or str(Path(sys.prefix).parent / ".venv-compression" / "bin" / "python")
    subprocess.run([python, str(HERE / "make_eight_bits.py"), str(place)], check=True)
    subprocess.run([sys.executable, str(HERE / "ask_vllm.py"), str(place)], check=True)
    return place


@pytest.mark.parametrize("name", ["tied", "apart", "odd", "weights"])
def test_vllm_says_what_transformers_says(folder: Path, name: str) -> None:
    expected = json.loads((folder / name / "expected.json").read_text())
    found = json.loads((folder / "answers.json").read_text())[name]
    assert found["logprobs"] == pytest.approx(expected["logprobs"], abs=1e-3)
    assert found["next"] == expected["next"]
    # Not the whole model by another name.
    assert max(abs(a - b) for a, b in zip(found["logprobs"], expected["whole"], strict=True)) > 0.01
