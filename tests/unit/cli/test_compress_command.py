"""`leanmodel compress`: what is said of a lean model, and where the file for other machines is."""

from __future__ import annotations

from pathlib import Path

from leanmodel_api.plan import CompressResult
from leanmodel_api.steps import GGUF_FILE
from leanmodel_cli.commands.compress import said


def result(size: int) -> CompressResult:
    return CompressResult(name="x", role="Lean", plan="p", artifact="sha256:" + "a" * 64, bytes=size)


def test_the_size_is_said_and_a_file_for_other_machines_has_its_place_named(tmp_path: Path) -> None:
    lean, large = result(2_500_000), result(10_000_000)
    assert said(lean, large, tmp_path) == [f"lean:  {lean.artifact} (2.5 MB, 25.0% of the large one's bytes)"]
    (tmp_path / GGUF_FILE).write_bytes(b"x" * 1_200_000)
    assert said(lean, large, tmp_path)[1:] == [f"GGUF:  {tmp_path / GGUF_FILE} (1.2 MB)"]
