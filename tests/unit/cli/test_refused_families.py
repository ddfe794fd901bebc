"""What no engine can do with a family is refused by every command, before anything is made or fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanmodel_cli.main import main

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"


def squeezebert_in_vllm(spec: dict[str, Any]) -> None:
    spec["large"]["source"]["uri"] = "hf://squeezebert/squeezebert-uncased"
    spec["serving"]["large"]["engine"] = "vLLM"


def albert_as_gguf(spec: dict[str, Any]) -> None:
    spec["large"]["source"]["uri"] = "hf://albert/albert-base-v2"
    spec["lean"]["steps"][-1] = {"type": "Export", "format": "GGUF"}


CASES: list[tuple[Callable[[dict[str, Any]], None], str, str]] = [
    (squeezebert_in_vllm, "spec.serving.large.engine: found vLLM", "; write ONNXRuntime"),
    (
        albert_as_gguf,
        "spec.lean.steps[3].format: found GGUF",
        "; write ONNX, which runs on small devices too",
    ),
]


@pytest.mark.parametrize("command", ["validate", "estimate", "up"])
@pytest.mark.parametrize(
    ("change", "words", "instead"), CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_family_that_an_engine_lacks_is_refused_with_the_alternative(
    command: str, change: Callable[[dict[str, Any]], None], words: str, instead: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    home = tmp_path / "home"
    monkeypatch.setenv("LEANMODEL_HOME", str(home))
    document = yaml.safe_load((QUICKSTART / "classifier.yaml").read_text())
    change(document["spec"])
    path = tmp_path / "leanmodel.yaml"
    path.write_text(yaml.safe_dump(document))
    assert main([command, "-f", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and line.endswith(instead)
    assert not home.exists()
