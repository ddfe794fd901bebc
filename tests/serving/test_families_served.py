"""Gemma 3, GPT-2 and Phi-3 in vLLM, whole and compressed: the log-probs and the greedy answers of transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("families")
    named = os.environ.get("LEANMODEL_COMPRESSION_PYTHON")
    python = named or str(Path(sys.prefix).parent / ".venv-compression" / "bin" / "python")
    subprocess.run([python, str(HERE / "make_families.py"), str(place)], check=True)
    subprocess.run([sys.executable, str(HERE / "ask_vllm.py"), str(place)], check=True)
    return place


@pytest.mark.parametrize("name", ["Gemma3-whole", "GPT2-whole", "Phi3-whole", "GPT2-lean"])
def test_vllm_says_what_transformers_says(folder: Path, name: str) -> None:
    expected = json.loads((folder / name / "expected.json").read_text())
    found = json.loads((folder / "answers.json").read_text())[name]
    assert found["logprobs"] == pytest.approx(expected["logprobs"], abs=1e-3)
    assert found["answer"] == expected["answer"]


@pytest.mark.parametrize("family", ["Gemma3", "Phi3"])
def test_vllm_computes_in_eight_bits_nearly_what_transformers_computes_with_them_expanded(
    folder: Path, family: str
) -> None:
    """vLLM rounds activations, too; transformers has the rounded weights alone."""
    expected = json.loads((folder / f"{family}-lean" / "expected.json").read_text())
    whole = json.loads((folder / f"{family}-whole" / "expected.json").read_text())
    found = json.loads((folder / "answers.json").read_text())[f"{family}-lean"]
    off = [abs(a - b) for a, b in zip(found["logprobs"], expected["logprobs"], strict=True)]
    other = [abs(a - b) for a, b in zip(found["logprobs"], whole["logprobs"], strict=True)]
    assert sum(off) / len(off) < 0.15 < 0.5 < sum(other) / len(other)
