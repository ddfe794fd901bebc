"""Tiny models, a tiny data set and plans over them: every step runs in seconds."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# Before anything imports torch: the Job's own settings, so that results in and out of process agree.
from leanmodel_compression.__main__ import settle

settle(1)

import pytest  # noqa: E402
from decoder_making import make_model, messages  # noqa: E402

from leanmodel_api.plan import CompressPlan, CompressResult  # noqa: E402
from leanmodel_api.progress import ProgressLine, parse  # noqa: E402
from leanmodel_compression.job import Job  # noqa: E402
from leanmodel_compression.progress import Reporter  # noqa: E402
from leanmodel_store.artifacts import Store  # noqa: E402


@pytest.fixture(scope="session")
def texts() -> list[tuple[str, str]]:
    """Messages of two kinds that differ by their words."""
    return messages()


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    path = tmp_path_factory.mktemp("data") / "messages.tsv"
    path.write_text("label\tmsg\n" + "".join(f"{label}\t{text}\n" for label, text in texts))
    return path


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny", texts)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def data_set(path: Path, **more: Any) -> dict[str, Any]:
    return {
        "name": "messages",
        "source": {"uri": f"file:{path}"},
        "format": "TSV",
        "prompt": {"system": "Spam or ham?", "user": "{msg}"},
        "answer": "{label}",
        "choices": ["ham", "spam"],
        **more,
    }


def plan_of(**fields: Any) -> CompressPlan:
    base: dict[str, Any] = {"name": "tiny", "role": "Large", "maxModelLength": 128}
    base["limits"] = {"memoryBytes": 6 * 2**30, "threads": 1}
    return CompressPlan.model_validate({**base, **fields})


def run_plan(plan: CompressPlan, store: Store, also: list[CompressPlan] | None = None) -> CompressResult:
    return Job(plan, store, Reporter("compress-large", emit=lambda line: None), also or []).run()


# Its server has imported what takes seconds and run nothing, so a child of it is as a new process is.
APART = multiprocessing.get_context("forkserver")
APART.set_forkserver_preload(["torch", "transformers"])


def run_apart(plan: CompressPlan, store: Store) -> CompressResult:
    """Run a plan in a process of its own, whose memory is the plan's and not that of the tests before."""
    with ProcessPoolExecutor(1, mp_context=APART) as pool:
        return pool.submit(run_plan, plan, store).result()


@pytest.fixture
def large(store: Store, model_folder: Path) -> CompressResult:
    """The tiny model, fetched into the test's store."""
    return run_plan(plan_of(source={"uri": f"file:{model_folder}"}), store)


def lean_plan(
    large: CompressResult, data_file: Path, steps: list[dict[str, Any]], **more: Any
) -> CompressPlan:
    fields = {"dataSets": [data_set(data_file)], **more}
    return plan_of(role="Lean", base=large.artifact, teacher=large.artifact, steps=steps, **fields)


EVERY_LINE = ("--progress-seconds", "0")
"""For a test that waits for a moment of a training: fast machines pass it between two lines otherwise."""


class Process:
    """The Job as a process of its own, followed by its progress lines."""

    def __init__(self, plan: CompressPlan, store: Path, folder: Path, *more: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.result = folder / "result.json"
        self.errors = folder / "errors.txt"
        (folder / "plan.json").write_text(plan.to_json())
        command = [sys.executable, "-m", "leanmodel_compression", "--plan", str(folder / "plan.json")]
        command += ["--store", str(store), "--result", str(self.result), *more]
        self.lines: list[ProgressLine] = []
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment()
            )

    def follow(self, until: Any = lambda line: False) -> bool:
        """Read progress until a line fits; False when the process ended before."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line = parse(text)
            if line is not None:
                self.lines.append(line)
                if until(line):
                    return True
        self.process.wait(timeout=60)
        return False

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, keep reading what was still said, and return the exit code."""
        self.process.send_signal(number)
        self.follow()
        return self.process.wait(timeout=60)

    def made(self) -> CompressResult:
        assert self.process.returncode == 0, self.errors.read_text()
        return CompressResult.model_validate(json.loads(self.result.read_text()))


def environment() -> dict[str, str]:
    import leanmodel_api
    import leanmodel_compression
    import leanmodel_store

    rooms = [
        str(Path(room.__file__).parents[1])
        for room in (leanmodel_api, leanmodel_store, leanmodel_compression)
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(rooms)}
