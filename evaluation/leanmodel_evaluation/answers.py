"""What a model answered, kept so that it is asked for once.

A book is one JSON-lines file per (artifact, engine, sampling, concurrency): the large model's is read
again for every lean revision that is proven against it. A line is written by a single ``write`` to a
file opened for appending; what a killed Job leaves is at most one torn last line, which the next one
cuts off. Lines are found by the digest of the whole request, so a changed prompt is never answered by
an old line.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from leanmodel_api.base import Part

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
        self.path = folder / f"{self.digest}.jsonl"
        self._header = json.dumps({"book": json.loads(text)}) + "\n"
        self._answers: dict[str, Answer] = {}
        self._scores: dict[str, Score] = {}
        self._file: int | None = None

    @contextmanager
    def writing(self) -> Iterator[AnswerBook]:
        """Open the book, alone, with what it already holds; a second Job waits here for the first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self.path.exists()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._read()
            if fresh and os.fstat(self._file).st_size == 0:
                os.write(self._file, self._header.encode())
            yield self
            os.fsync(self._file)
        finally:
            os.close(self._file)
            self._file = None

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
        if self._file is None:
            raise RuntimeError("the book is not open for writing")
        kind = "answer" if isinstance(entry, Answer) else "score"
        line = f'{{"{kind}":{entry.to_json()}}}\n'.encode()
        if os.write(self._file, line) != len(line):
            raise OSError(f"could not append a whole line to {self.path.name}: is the disk full?")
        self._keep(entry)

    def _keep(self, entry: Answer | Score) -> None:
        if isinstance(entry, Answer):
            self._answers[entry.request] = entry
        else:
            self._scores[entry.request] = entry

    def _read(self) -> None:
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end != len(data) and self._file is not None:
            os.ftruncate(self._file, end)
        for line in data[:end].splitlines():
            entry = _entry(line)
            if entry is not None:
                self._keep(entry)


def _entry(line: bytes) -> Answer | Score | None:
    """Return what a line holds; a header or a damaged line holds nothing, and is asked for again."""
    try:
        content = json.loads(line)
        if "answer" in content:
            return Answer.model_validate(content["answer"])
        if "score" in content:
            return Score.model_validate(content["score"])
    except (ValueError, TypeError, ValidationError):
        return None
    return None
