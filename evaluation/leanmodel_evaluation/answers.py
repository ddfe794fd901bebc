"""What a model answered, kept so that it is asked for once.

A book is one JSON-lines file per (artifact, engine, sampling, concurrency): the large model's is read
again for every lean revision that is proven against it. Lines are found by the digest of the whole
request, so a changed prompt is never answered by an old line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from leanmodel_api.base import Part
from leanmodel_store.journal import Journal

VERSION = 1


class Answer(Part):
    """One answer of one model to one request."""

    request: str = Field(description="Digest of the request that it answers.")
    text: str = Field(description="What came back; empty when it was refused.")
    logprobs: list[float] = Field(
        default_factory=list, description="Log-probability of each token chosen, nats."
    )
    top_logprobs: list[list[float]] = Field(
        default_factory=list, description="Per token, the best log-probabilities, best first."
    )
    finish_reason: str = Field("", description="stop, length, or refused.")
    prompt_tokens: int = Field(0, description="Tokens of the prompt.")
    completion_tokens: int = Field(0, description="Tokens of the answer.")
    seconds: float = Field(0, description="Time of the whole request.")
    vector: str | None = Field(
        None, description="A text's vector: little-endian float32 in base64. Default: the answer is a text."
    )
    error: str | None = Field(
        None, description="Why the engine refused this one request (HTTP 400, 413, 422)."
    )


class Score(Part):
    """The log-probability that one model gives to a wanted text."""

    request: str = Field(description="Digest of the request that it answers.")
    nll: float = Field(description="Negative log-probability of the scored tokens, nats.")
    tokens: int = Field(description="Tokens scored.")


def request_digest(body: dict[str, Any]) -> str:
    """Return the digest of a request's body, whoever it is addressed to."""
    content = {key: value for key, value in body.items() if key != "model"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class AnswerBook:
    """The answers of one artifact under one engine, sampling and concurrency.

    Args:
        folder: where books live; made when missing.
        identity: what the answers depend on beside the request; its digest names the file.
    """

    def __init__(self, folder: Path, identity: dict[str, str]):
        """Remember where the book is; :meth:`writing` reads it."""
        text = json.dumps({**identity, "version": str(VERSION)}, sort_keys=True)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:24]
        self._journal = Journal(folder / f"{self.digest}.jsonl")
        self.path = self._journal.path
        self._header = {"book": json.loads(text)}
        self._answers: dict[str, Answer] = {}
        self._scores: dict[str, Score] = {}

    @contextmanager
    def writing(self) -> Iterator[AnswerBook]:
        """Open the book, alone, with what it already holds; a second Job waits here for the first."""
        with self._journal.writing():
            lines = self._journal.lines()
            for entry in map(_entry, lines):
                if entry is not None:
                    self._keep(entry)
            if not lines:
                self._journal.append(self._header)
            yield self

    def answer(self, request: str) -> Answer | None:
        """Return the answer to a request, when there is one."""
        return self._answers.get(request)

    def score(self, request: str) -> Score | None:
        """Return the score of a request, when there is one."""
        return self._scores.get(request)

    def add(self, entry: Answer | Score) -> None:
        """Append an entry. What is already there stays as it is."""
        known = self._answers if isinstance(entry, Answer) else self._scores
        if entry.request in known:
            return
        kind = "answer" if isinstance(entry, Answer) else "score"
        self._journal.append({kind: entry.model_dump(mode="json", by_alias=True, exclude_none=True)})
        self._keep(entry)

    def _keep(self, entry: Answer | Score) -> None:
        if isinstance(entry, Answer):
            self._answers[entry.request] = entry
        else:
            self._scores[entry.request] = entry


def _entry(content: dict[str, Any]) -> Answer | Score | None:
    """Return what a line holds; a header or a damaged line holds nothing, and is asked for again."""
    try:
        if "answer" in content:
            return Answer.model_validate(content["answer"])
        if "score" in content:
            return Score.model_validate(content["score"])
    except ValidationError:
        return None
    return None
