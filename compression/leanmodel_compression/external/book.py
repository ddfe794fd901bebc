"""What a teacher was asked, what it answered, and what that cost: one line each, kept before and after every call.

A call is written down with the most that it can cost *before* it is sent, and settled when its answer has come. A kill
between the two leaves a call of which nobody knows whether it was charged: it counts as the most, for good. So what is
spent is never more than what the book says, and what the book says is never more than the bounds.

The book is one per LeanModel and outlives its plans: other data, settings or bounds go on with what was spent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from leanmodel_api.base import NAME_PATTERN
from leanmodel_store.artifacts import Store
from leanmodel_store.journal import Journal

Bound = Literal["maxCalls", "maxUSD"]
FOLDER = "teachers"


@dataclass(frozen=True)
class Answer:
    """What came back for one prompt.

    Attributes:
        text: the answer; empty where the provider refused the prompt.
        finish: why it ended: ``stop``, ``length`` (cut), ``refused``, or another word of the provider's.
        prompt_tokens: as charged; 0 where the provider did not say.
        answer_tokens: likewise.
    """

    text: str
    finish: str
    prompt_tokens: int = 0
    answer_tokens: int = 0


@dataclass
class Paid:
    """Calls for one prompt, and what they cost (10⁻¹² US dollars)."""

    calls: int = 0
    cost: int = 0


@dataclass(frozen=True)
class Held:
    """A call under way: for which prompt, the most that it can cost, and the margin set aside beside that."""

    prompt: str
    most: int
    margin: int

    @property
    def whole(self) -> int:
        """What is set aside."""
        return self.most + self.margin


@dataclass
class Ledger:
    """The sum of the book's lines.

    Attributes:
        answers: by the digest of prompt and settings.
        paid: likewise.
        under_way: what is set aside for each unsettled call.
        calls: calls that were, or may have been, charged.
        spent: what they cost at most.
        margin: how much more a call has cost than the most that it was thought to; 0 unless the provider counts
            tokens that nobody sent, or gives more than were allowed. It is added to every later call.
        lost: calls that a kill left unsettled.
        number: calls in all, charged or not.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    paid: dict[str, Paid] = field(default_factory=dict)
    under_way: dict[int, Held] = field(default_factory=dict)
    calls: int = 0
    spent: int = 0
    margin: int = 0
    lost: int = 0
    number: int = 0

    def take(self, line: Mapping[str, Any]) -> None:
        """Count one line; one that makes no sense changes nothing."""
        kind, call, prompt = line.get("kind"), line.get("call"), line.get("prompt")
        if not isinstance(call, int):
            return
        if kind == "asked" and isinstance(prompt, str) and isinstance(line.get("most"), int):
            self.number = max(self.number, call)
            self.under_way[call] = Held(prompt, int(line["most"]), int(line.get("margin", 0)))
        elif kind == "free":
            self.under_way.pop(call, None)
        elif kind in ("answered", "lost") and call in self.under_way:
            held = self.under_way.pop(call)
            self._pay(held, int(line.get("cost", held.whole)))
        if kind in ("answered", "free") and isinstance(line.get("text"), str):
            self.answers.setdefault(str(prompt), _answer(line))

    def lose(self) -> None:
        """Count every call that is under way as charged with the most: whoever sent it is gone."""
        for held in self.under_way.values():
            self._pay(held, held.whole)
            self.lost += 1
        self.under_way.clear()

    def tight(self, most: int, calls: int, amount: int) -> Bound | None:
        """Return the bound that one more call could pass; None where it fits.

        Args:
            most: what it can cost.
            calls: bound of the calls.
            amount: bound of the cost.
        """
        if self.calls + len(self.under_way) + 1 > calls:
            return "maxCalls"
        held = sum(call.whole for call in self.under_way.values())
        return "maxUSD" if self.spent + held + most + self.margin > amount else None

    def _pay(self, held: Held, cost: int) -> None:
        self.calls, self.spent = self.calls + 1, self.spent + cost
        self.margin = max(self.margin, cost - held.most)
        paid = self.paid.setdefault(held.prompt, Paid())
        paid.calls, paid.cost = paid.calls + 1, paid.cost + cost


class Book:
    """A LeanModel's book in the store."""

    def __init__(self, store: Store, name: str):
        """Read what is there; a name that is none of Kubernetes' (and could leave the folder) becomes its hash."""
        plain = name if re.fullmatch(NAME_PATTERN, name) else hashlib.sha256(name.encode()).hexdigest()
        self._journal = Journal(store.root / FOLDER / f"{plain}.jsonl")
        self.ledger = self._read()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Have the book alone during the block; another Job of this LeanModel waits here for the first."""
        with self._journal.writing():
            self.ledger = self._read()
            yield

    def asked(self, prompt: str, most: int) -> int:
        """Note that a call is about to be sent, wait until the disk has it, and return its number."""
        call = self.ledger.number + 1
        line = {"kind": "asked", "call": call, "prompt": prompt, "most": most, "margin": self.ledger.margin}
        self._add(line, durable=True)
        return call

    def answered(self, call: int, prompt: str, answer: Answer, cost: int | None) -> None:
        """Note an answer and what it cost; None where the provider does not say: it then counts as the most."""
        line = {"kind": "answered", "call": call, "prompt": prompt, **_line(answer)}
        self._add(line if cost is None else {**line, "cost": cost})

    def refused(self, prompt: str) -> None:
        """Note that the provider will not answer a prompt, so that it is not asked again; its call was set free."""
        line = {"kind": "free", "call": 0, "prompt": prompt}
        self._add({**line, **_line(Answer("", "refused"))})

    def free(self, call: int) -> None:
        """Note that a call was turned away and is not charged."""
        self._add({"kind": "free", "call": call})

    def lost(self, call: int) -> None:
        """Note that a call's answer never came: it may be charged, and counts as the most."""
        self._add({"kind": "lost", "call": call})

    def _add(self, line: dict[str, Any], *, durable: bool = False) -> None:
        self._journal.append(line, durable=durable)
        self.ledger.take(line)

    def _read(self) -> Ledger:
        ledger = Ledger()
        for line in self._journal.lines():
            ledger.take(line)
        ledger.lose()
        return ledger


def _line(answer: Answer) -> dict[str, Any]:
    return {
        "text": answer.text, "finish": answer.finish,
        "promptTokens": answer.prompt_tokens, "answerTokens": answer.answer_tokens,
    }  # fmt: skip


def _answer(line: Mapping[str, Any]) -> Answer:
    counts = [line.get(name) for name in ("promptTokens", "answerTokens")]
    prompt, answer = (count if isinstance(count, int) else 0 for count in counts)
    return Answer(str(line["text"]), str(line.get("finish", "")), prompt, answer)
