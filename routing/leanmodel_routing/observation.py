"""What the router knows when it decides: the lean answer and its log-probabilities, and the prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from leanmodel_api.policy import Record

FLOOR = -100.0
"""Engines write an impossible token as -inf or -9999; nothing below this tells more."""


class Observation:
    """One lean answer as the signals see it.

    `tokens`: log-probability of each token, clipped to [FLOOR, 0]; None where there is none (or the answer
    is empty). `ordered`: the same, ascending, sorted once for all signals. `top`: for each token its best
    log-probabilities, best first, or None. `answer`, `finish_reason`, `prompt`: text, or None where
    unknown. `schema`: JSON schema that the request asks the answer to follow, or None.
    """

    __slots__ = ("answer", "finish_reason", "ordered", "prompt", "schema", "tokens", "top")

    def __init__(
        self,
        token_logprobs: Sequence[float] | None = None,
        top_logprobs: Sequence[Sequence[float]] | None = None,
        answer: str | None = None,
        finish_reason: str | None = None,
        prompt: str | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokens: list[float] | None = None
        self.ordered: list[float] = []
        if token_logprobs:
            self.tokens = [_clip(value) for value in token_logprobs]
            self.ordered = sorted(self.tokens)
        self.top = top_logprobs
        self.answer = answer
        self.finish_reason = finish_reason
        self.prompt = prompt
        self.schema = schema

    @classmethod
    def of(cls, record: Record) -> Observation:
        """The observation a record stands for."""
        return cls(
            record.lean_logprobs,
            record.lean_top_logprobs,
            record.lean_answer,
            record.lean_finish_reason,
            record.prompt_text,
            record.response_schema,
        )

    def first(self, count: int | None) -> Observation:
        """The answer as it stands once more than `count` tokens of it are there; None: the whole answer.

        Of a longer answer neither its text nor why it ended is known by then. One without log-probabilities cannot be
        cut, and counts whole.
        """
        if count is None or self.tokens is None or len(self.tokens) <= count:
            return self
        top = self.top[:count] if self.top else None
        return Observation(self.tokens[:count], top, prompt=self.prompt, schema=self.schema)

    def has(self, need: str) -> bool:
        """Whether what a signal needs is there: `logprobs`, `margins`, `answer`, `finish_reason`,
        `schema` or `prompt`.
        """
        if need == "logprobs":
            return self.tokens is not None
        if need == "margins":
            return bool(self.top) and all(len(pair) >= 2 for pair in self.top or ())
        if need == "answer":
            return self.answer is not None
        if need == "finish_reason":
            return self.finish_reason is not None
        if need == "schema":
            return self.schema is not None
        return self.prompt is not None


def _clip(value: float) -> float:
    if value != value:  # NaN: an engine that could not say; the least confident reading is the safe one
        return FLOOR
    return 0.0 if value > 0.0 else (value if value > FLOOR else FLOOR)


def surprise(logprob: float) -> float:
    """-log(1 - p): grows without a sharp end as a token becomes certain, where log p itself only nears 0."""
    return min(20.0, -math.log(max(-math.expm1(logprob), 1e-9)))
