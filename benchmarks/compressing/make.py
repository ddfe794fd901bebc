"""The phase `make`: each row is compressed in a process of its own, then judged; beside other work if need be."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanmodel_api.parts import Example
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.progress import parse
from leanmodel_cli.processes import compression_python
from leanmodel_store.artifacts import Store

from . import subjects
from .kept import Lines
from .rows import LARGE, Row, Subject
from .subjects import Limits
from .watched import Watched, watch

ASK, FORETELL = Path(__file__).with_name("ask.py"), Path(__file__).with_name("foretell.py")
BATCH = 8
"""Messages that an encoder is asked together: in 8 bits an answer depends a little on its neighbours."""
JUDGED = "1"
"""Raised when rows are judged otherwise: they are then judged anew."""


class Maker:
    """Makes rows in a work folder, and knows those that are made."""

    def __init__(self, work: Path, limits: Limits):
        """Use (and make, where missing) the work folder."""
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.limits = work, limits
        self.store = Store(work / "store")
        self.lines = Lines(work / "rows.jsonl")
        self._started: dict[Subject, tuple[CompressPlan, CompressResult]] = {}

    def large(self, subject: Subject, *, make: bool = True) -> tuple[CompressPlan, CompressResult] | None:
        """Return a subject's large model and the plan that made it; made now where it is not and may be."""
        if subject not in self._started:
            plan = subjects.start_plan(subject, self.limits)
            line = self.lines.find(f"{subject}/{LARGE}", self.key(plan))
            if line is None or "result" not in line:
                if not make:
                    return None
                line = self._make(f"{subject}/{LARGE}", plan)
            self._started[subject] = (plan, CompressResult.model_validate(line["result"]))
        return self._started[subject]

    def key(self, plan: CompressPlan) -> str:
        """Return what a row's line is found by: what is made, and how it is judged."""
        words = [plan.key(), *self.asked()]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]

    def asked(self) -> list[Any]:
        """Return how rows are judged."""
        return [JUDGED, subjects.WINDOWS, self.limits.examples]

    def plan(self, row: Row, *, make: bool = True) -> CompressPlan | None:
        """Return a row's plan; None where its large model is missing and may not be made."""
        found = self.large(row.subject, make=make)
        if found is None:
            return None
        start, large = found
        return (
            start
            if row.name == LARGE
            else subjects.row_plan(row, start, large, self.pieces(large, row.subject))
        )

    def line(self, row: Row, *, make: bool = False) -> dict[str, Any] | None:
        """Return a row's line; made now where it is missing (or had failed) and may be."""
        plan = self.plan(row, make=make)
        if plan is None:
            return None
        line = self.lines.find(row.id, self.key(plan))
        if make and (line is None or "error" in line):
            line = self._make(row.id, plan)
        return line

    def pieces(self, large: CompressResult, subject: Subject) -> Path:
        """Return the file of WikiText-2's validation part in windows, written where it is missing."""
        path = self.work / "valid.jsonl"
        if subject == "words" and not path.exists():
            subjects.write_pieces(self.folder(large) / "tokenizer.json", path)
        return path

    def folder(self, made: CompressResult) -> Path:
        """Return where an artifact lies."""
        return self.store.open(made.artifact).path

    def _make(self, name: str, plan: CompressPlan) -> dict[str, Any]:
        """Compress and judge a row, and keep its line; where it failed, its words."""
        line: dict[str, Any] = {
            "row": name,
            "key": self.key(plan),
            "load": os.getloadavg()[0],
            "date": datetime.date.today().isoformat(),
            "asked": self.asked(),
        }
        made, watched = compress(plan, self.store.root, self.work / "job")
        line["watched"] = watched.figures()
        if made is None:
            line["error"] = watched.errors
            self.lines.add(line)
            raise RowError(f"{name}: exit code {watched.code}\n{watched.errors}")
        line["result"] = json.loads(made.to_json())
        subject: Subject = name.partition("/")[0]  # type: ignore[assignment]
        if subject not in self._started:
            self._started[subject] = (plan, made)
        line["judged"] = self._judged(subject, made) or self._judge(subject, made)
        if name == f"{subject}/{LARGE}" and plan.data_sets:
            line["baselines"] = subjects.baselines(plan, self.store, line["judged"]["wanted"])
        self.lines.add(line)
        return line

    def _judged(self, subject: Subject, made: CompressResult) -> dict[str, Any] | None:
        """Return what was found of the same artifact before: other memory or time change nothing that it answers."""
        for line in self.lines.all():
            same = line["row"].startswith(f"{subject}/") and line.get("asked") == self.asked()
            if same and line.get("result", {}).get("artifact") == made.artifact and "judged" in line:
                found: dict[str, Any] = line["judged"]
                return found
        return None

    def _judge(self, subject: Subject, made: CompressResult) -> dict[str, Any]:
        start, large = self._started[subject]
        folder = self.folder(made)
        if subject == "words":
            return self._ask(folder, self._windows(large))
        examples = subjects.held_out(start, self.store)
        if self.limits.examples is not None:
            examples = examples[: 4 * self.limits.examples]
        wanted = [example.answer for example in examples]
        if subject == "labels":
            return {"given": labels(folder, examples, self.limits.threads), "wanted": wanted}
        asked = [json.loads(example.to_json()) for example in examples]
        return {
            **self._ask(folder, {"examples": asked, "choices": start.data_sets[0].choices}),
            "wanted": wanted,
        }

    def _windows(self, large: CompressResult) -> dict[str, Any]:
        from tokenizers import Tokenizer

        file = self.folder(large) / "tokenizer.json"
        count = min(subjects.WINDOWS, self.limits.examples or subjects.WINDOWS)
        vocabulary = Tokenizer.from_file(str(file)).get_vocab_size()
        return {"windows": subjects.windows(file, "test", subjects.WINDOW)[:count], "vocabulary": vocabulary}

    def foretell(self, made: Sequence[Row]) -> dict[str, int]:
        """Return the peak memory in bytes that is estimated before any work, by row; their large models are made."""
        plans: dict[str, list[Any]] = {}
        for row in made:
            found, plan = self.large(row.subject, make=False), self.plan(row, make=False)
            if found is not None and plan is not None:
                both = [plan] if row.name == LARGE else [found[0], plan]
                plans[row.id] = [json.loads(one.to_json()) for one in both]
        return self._run(FORETELL, {"plans": plans, "store": str(self.store.root)})

    def _ask(self, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
        return self._run(ASK, {"model": str(folder), "threads": self.limits.threads, **asked})

    def _run(self, script: Path, asked: dict[str, Any]) -> dict[str, Any]:
        """Run a script under the compression environment, with its input and output as files."""
        source, target = self.work / "asked.json", self.work / "answered.json"
        source.write_text(json.dumps(asked), encoding="utf-8")
        done = watch([str(compression_python()), str(script), str(source), str(target)], self.limits.threads)
        if done.code != 0:
            raise RowError(f"{script.name} failed with {done.code}\n{done.errors}")
        found: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        return found


class RowError(Exception):
    """A row could not be made; the words are its process's own."""


def compress(plan: CompressPlan, store: Path, folder: Path) -> tuple[CompressResult | None, Watched]:
    """Run a plan as the Job does, in a process of its own, and tell its progress."""
    folder.mkdir(parents=True, exist_ok=True)
    written, result = folder / "plan.json", folder / "result.json"
    written.write_text(plan.to_json(), encoding="utf-8")
    result.unlink(missing_ok=True)

    def tell(text: str) -> None:
        line = parse(text)
        if line is not None and sys.stdout.isatty():
            print(f"\r  {line.step} {line.percent} % {line.message[:60]:60}", end="", flush=True)

    command = [str(compression_python()), "-m", "leanmodel_compression", "--plan", str(written)]
    done = watch([*command, "--store", str(store), "--result", str(result)], plan.limits.threads, tell)
    if done.code != 0:
        return None, done
    return CompressResult.model_validate_json(result.read_text(encoding="utf-8")), done


def labels(folder: Path, examples: Sequence[Example], threads: int) -> list[str]:
    """Return a classifier's answers, from the engine that serves it, eight messages at a time."""
    from leanmodel_serving.engines.onnx import Encoder

    encoder, found = Encoder(folder, threads), []
    ids = [encoder.ids(example.plain()) for example in examples]
    for at in range(0, len(ids), BATCH):
        found += [encoder.labels[int(row.argmax())] for row in encoder.answers(ids[at : at + BATCH])]
    return found
