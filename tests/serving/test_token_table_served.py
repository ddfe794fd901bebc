"""Token tables in 8 bits in vLLM by our plugin: the log-probs of transformers, with a head that shares the table and with one of its own."""

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
    place = tmp_path_factory.mktemp("tables")
    named = os.environ.get("LEANMODEL_COMPRESSION_PYTHON")
    python = named or str(Path(sys.prefix).parent / ".venv-compression" / "bin" / "python")
    subprocess.run([python, str(HERE / "make_token_tables.py"), str(place)], check=True)
    subprocess.run([sys.executable, str(HERE / "ask_vllm.py"), str(place)], check=True)
    return place


@pytest.mark.parametrize("name", ["tied", "apart", "qwen", "odd"])
def test_vllm_says_what_transformers_says(folder: Path, name: str) -> None:
    expected = json.loads((folder / name / "expected.json").read_text())
    found = json.loads((folder / "answers.json").read_text())[name]
    # One layer's activations are rounded by vLLM alone.
    assert found["logprobs"] == pytest.approx(expected["logprobs"], abs=0.05)
    assert found["next"] == expected["next"]
