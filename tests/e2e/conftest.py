"""One home folder for the session: the fetched weights are shared, nothing of the user's own is touched."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_support import Cli, processes_of

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
ROWS = 900
"""Rows of the small data set: enough to go through every part of the loop, not to certify much."""


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a writer of small manifests: the quickstart with less data and fewer steps of training."""
    folder = tmp_path_factory.mktemp("manifests")
    lines = (QUICKSTART / "data" / "sms.tsv").read_text().splitlines()
    spam = [line for line in lines if line.startswith("spam\t")][: ROWS // 3]
    ham = [line for line in lines if line.startswith("ham\t")][: ROWS - len(spam)]
    (folder / "sms.tsv").write_text("\n".join([lines[0], *spam, *ham]) + "\n")

    def write(name: str, change: Callable[[dict[str, Any]], None] = lambda spec: None) -> Path:
        document = yaml.safe_load((QUICKSTART / "leanmodel.yaml").read_text())
        document["metadata"]["name"] = name
        spec = document["spec"]
        spec["dataSets"][0]["source"]["uri"] = "file:sms.tsv"
        spec["dataSets"][0]["split"] = {
            "seed": 0,
            "train": "0.3",
            "validation": "0.05",
            "fit": "0.15",
            "certify": "0.2",
            "report": "0.1",
            "test": "0.1",
        }
        spec["large"]["finetune"].update(
            maxExamples=96, trainLayers=4, epochs="1", batchSize=8, checkpointSteps=4
        )
        for step in spec["lean"]["steps"]:
            if step["type"] == "Prune":
                step.update(selection="Influence", keepLayers=3, protectFirst=2, samples=16)
            if step["type"] == "Distill":
                step.update(maxExamples=160, epochs="1", batchSize=8, checkpointSteps=4)
        spec["evaluation"].update(gates=[{"metric": "SizeRatio", "max": "0.35"}], throughputRequests=40)
        spec["routing"]["promise"] = {"retain": "0.5", "risk": "0.1"}
        # Shadows are drawn by lot, and what they cost is in no answer.
        spec["routing"]["monitoring"] = {"shadowing": "0"}
        change(spec)
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


@pytest.fixture(scope="session", autouse=True)
def nothing_left(cli: Cli) -> Iterator[None]:
    """Whatever a test does, no process of it outlives the session."""
    yield
    for line in processes_of(cli.home):
        os.kill(int(line.split()[0]), signal.SIGKILL)
