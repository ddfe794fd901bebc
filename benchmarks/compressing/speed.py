"""The phases `load` and `speed`: engines as processes, blocks in turn against the large model in the same run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanmodel_evaluation.speed import Block, compare_speed
from leanmodel_serving.host.processes import die_with_parent
from leanmodel_store import datasets

from .make import Maker, RowError
from .rows import LARGE, Row, Subject

ENGINE = Path(__file__).with_name("engine.py")
PAIRS = 6
SEQUENCES, NEW_TOKENS = 8, 32
"""A block of vLLM: so many sequences at once, so many tokens generated for each."""
TEXTS, TOGETHER = 200, 8
"""A block of ONNX Runtime: so many texts, so many of them computed together."""


class Engine:
    """A model under an engine, in a process of its own."""

    def __init__(self, subject: Subject, folder: Path, threads: int, log: Path):
        """Start it, and wait until it is loaded.

        Raises:
            RowError: it did not load; the end of its log is in the message.
        """
        kind, parent = "ONNXRuntime" if subject == "labels" else "vLLM", os.getpid()
        self._log = log
        self._errors = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, str(ENGINE), kind, str(folder), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
            preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent), start_new_session=True,
        )  # fmt: skip
        try:
            self.ready: float = self._read()["ready"]
        except RowError:
            self.end()
            raise

    def ask(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return what came of a block."""
        assert self._process.stdin is not None
        asked = {"texts": list(texts), "tokens": NEW_TOKENS, "together": TOGETHER}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._read()

    def memory(self) -> int:
        """Return the resident memory of the process, bytes."""
        text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS:"))

    def end(self) -> None:
        """End the process and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RowError(f"the engine ended:\n{self._log.read_text(errors='replace')[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def engine(maker: Maker, row: Row, folder: Path) -> Iterator[Engine]:
    """Start an engine for the block, and end it."""
    log = maker.work / "engines" / (row.id.replace("/", "-").replace(" ", "-") + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    started = Engine(row.subject, folder, maker.limits.threads, log)
    try:
        yield started
    finally:
        started.end()


@dataclass(frozen=True)
class Texts:
    """What engines are asked: messages of the train part, a new one for every request of a run."""

    texts: list[str]

    def block(self, subject: Subject, number: int) -> list[str]:
        """Return the texts of a block; block 0 warms up."""
        size = TEXTS if subject == "labels" else SEQUENCES
        return [self.texts[(number * size + at) % len(self.texts)] for at in range(size)]


def texts_of(maker: Maker) -> Texts:
    """Return the messages of the quickstart's train and validation part."""
    from . import subjects

    parts = datasets.load(subjects.start_plan("sms", maker.limits).data_sets[0], Path("."), maker.store)
    return Texts([example.plain() for example in [*parts.train, *parts.validation]])


def load(maker: Maker, row: Row, texts: Texts) -> dict[str, Any] | None:
    """Load a row in its engine and have it answer once; None where it is not made."""
    folder = folder_of(maker, row)
    if folder is None:
        return None
    with engine(maker, row, folder) as started:
        made = started.ask(texts.block(row.subject, 0)[:2])
        return {"row": row.id, "key": folder.parent.name, "ready": started.ready, "answers": made["answers"]}


def measure(maker: Maker, row: Row, large: Engine, texts: Texts) -> dict[str, Any] | None:
    """Return a row's speed by the large one's, in alternating blocks; None where it is not made."""
    folder = folder_of(maker, row)
    if folder is None:
        return None
    with engine(maker, row, folder) as lean:
        both = (large, lean)
        for one in both:
            one.ask(texts.block(row.subject, 0))
        blocks: dict[Engine, list[Block]] = {large: [], lean: []}
        for pair in range(PAIRS):
            asked = texts.block(row.subject, pair + 1)
            for one in both if pair % 2 == 0 else both[::-1]:
                blocks[one].append(block_of(row.subject, one.ask(asked)))
        memory = (large.memory(), lean.memory())
    found = compare_speed(blocks[large], blocks[lean], memory, 0)
    return {
        "row": row.id, "key": folder.parent.name, "ratio": found.ratio.model_dump(mode="json", by_alias=True),
        "rate": found.lean.requests_per_second.value, "large": found.large.requests_per_second.value,
        "memory": memory[1], "largeMemory": memory[0], "load": os.getloadavg()[0],
    }  # fmt: skip


def block_of(subject: Subject, told: dict[str, Any]) -> Block:
    """Return a block; what vLLM makes is counted in tokens that it generated, a label is a request."""
    count = told["requests"] if subject == "labels" else told["tokens"]
    return Block(count, told["tokens"], told["seconds"], (told["seconds"],))


def folder_of(maker: Maker, row: Row) -> Path | None:
    """Return where a row's artifact lies, None where it is not made."""
    from leanmodel_api.plan import CompressResult

    line = maker.line(row)
    if line is None or "result" not in line:
        return None
    return maker.folder(CompressResult.model_validate(line["result"]))


def to_time(rows: Sequence[Row]) -> dict[Subject, list[Row]]:
    """Return the rows whose speed is measured, by subject; the decoders' shapes are those of one subject."""
    found: dict[Subject, list[Row]] = {}
    for row in rows:
        if row.timed and row.name != LARGE:
            found.setdefault(row.subject, []).append(row)
    return found
