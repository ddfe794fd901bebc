"""Pairs of real models, and what both answered to thousands of prompts: see README.md."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from leanmodel_api.policy import Aggregate, Record
from leanmodel_routing.io import parse_records

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Pair:
    """A large and a lean model.

    Attributes:
        name: of its file of records.
        aggregate: how qualities are averaged.
        about: both models and the data, in a sentence.
    """

    name: str
    aggregate: Aggregate
    about: str

    def records(self) -> list[Record]:
        """Return its records, in the order of the file."""
        return list(_read(HERE / f"{self.name}.jsonl.gz"))


@lru_cache
def _read(path: Path) -> tuple[Record, ...]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return tuple(parse_records(lines, path.name)[0])


PAIRS = (
    Pair(
        "sms-words", "balanced",
        "Spam or ham, by logistic regression on words and runs of characters (large) or on the hundred commonest words "
        "alone (lean); balanced accuracy.",
    ),
    Pair(
        "articles-linear", "mean",
        "Which of forty encyclopedia articles a sentence is from, by a MiniLM fine-tuned for four epochs (large) or by TF-IDF "
        "of five hundred words with logistic regression (lean); accuracy.",
    ),
    Pair(
        "questions-10-layers", "mean",
        "Questions of five kinds with one right answer each, by SmolLM2-135M fine-tuned on such questions (large) or by ten "
        "of its thirty layers, distilled from it, in 8 bits (lean); exact match. Both were served by vLLM under `leanmodel up`.",
    ),
    Pair(
        "questions-w4a16", "mean",
        "The same questions, by the same large model, or by itself in 4 bits (lean; W4A16, rounded to nearest); exact match. Both "
        "were served by vLLM under `leanmodel up`.",
    ),
)  # fmt: skip
"""Every pair."""
