"""From a data set to what a step learns of it: the teacher's answers in place of the data set's own.

Only prompts of the train part are ever sent, and with ``earlyStopping`` those of the validation part: never one of the
parts that the proof asks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Literal

from leanmodel_api.errors import InputError, Issue
from leanmodel_api.parts import Example
from leanmodel_api.plan import CompressPlan
from leanmodel_api.steps import TrainingFields
from leanmodel_api.teacher import Teacher
from leanmodel_api.teacher_rules import FIELD, learns
from leanmodel_store import disk
from leanmodel_store.artifacts import Store
from leanmodel_store.datasets import Parts

from .. import encode
from ..checks import Planned
from . import prompts
from .asking import Asking, Told
from .book import Answer, Book, Ledger
from .money import PER_USD, bound, dollars, tariff
from .provider import Provider, read_key

# As many as every training step wants.
LEAST_ROWS = 8
# What is not there yet is taken for as long as it may become: two characters a token, as in rough rows.
CHARACTERS = 2
_AROUND = " \t\r\n.\"'`*"
Left = Literal["cut", "refused", "empty", "no choice"]


@dataclass(frozen=True)
class Lesson:
    """What one step is to learn from the teacher.

    Attributes:
        field: the step's place in the manifest.
        spec: the step.
        parts: its data set, split.
        choices: the answers that are allowed; empty for free text.
        teacher: who is asked.
    """

    field: str
    spec: TrainingFields
    parts: Parts
    choices: tuple[str, ...]
    teacher: Teacher

    def train(self) -> list[Example]:
        """Return the train examples that are asked: no more than the step uses, where that can be told before."""
        limit = self.spec.max_examples if self.spec.max_imbalance is None else None
        return self.parts.train[:limit]

    def validation(self) -> list[Example]:
        """Return the validation examples that are asked: none unless training looks at them."""
        return self.parts.validation if self.spec.early_stopping is not None else []

    @cached_property
    def wanted(self) -> dict[str, Example]:
        """Return what is asked, by digest, in order; equal prompts once."""
        found: dict[str, Example] = {}
        for example in (*self.train(), *self.validation()):
            found.setdefault(prompts.digest(example, self.teacher), example)
        return found

    def missing(self, ledger: Ledger) -> list[Example]:
        """Return what is not answered yet."""
        return [example for key, example in self.wanted.items() if key not in ledger.answers]

    def expected(self) -> Parts:
        """Return the parts with answers as long as they may become: for estimates before anything is asked."""
        words = cycle(self.choices or ("x" * (CHARACTERS * self.teacher.max_tokens),))
        return self._with(
            [one.model_copy(update={"answer": next(words)}) for one in part]
            for part in (self.train(), self.validation())
        )

    def learned(self, ledger: Ledger) -> tuple[Parts, dict[str, float]]:
        """Return the parts with the teacher's answers, and figures of them.

        Raises:
            InputError: too few of them can be learned.
        """
        left: Counter[Left] = Counter()
        taught = [self._taught(part, ledger, left) for part in (self.train(), self.validation())]
        asked = [key for key in self.wanted if key in ledger.answers]
        kept = len(taught[0]) + len(taught[1])
        if len(taught[0]) < LEAST_ROWS:
            raise InputError(self._too_few(len(taught[0]), left))
        paid = [ledger.paid[key] for key in asked if key in ledger.paid]
        figures = {
            "teacherPrompts": float(len(self.wanted)),
            "teacherCalls": float(sum(one.calls for one in paid)),
            "teacherPromptTokens": float(sum(ledger.answers[key].prompt_tokens for key in asked)),
            "teacherAnswerTokens": float(sum(ledger.answers[key].answer_tokens for key in asked)),
            "teacherUSD": sum(one.cost for one in paid) / PER_USD,
            "teacherKept": float(kept),
            "teacherLeftOut": float(sum(left.values())),
        }
        return self._with(taught), figures

    def _taught(self, part: Sequence[Example], ledger: Ledger, left: Counter[Left]) -> list[Example]:
        found = []
        for example in part:
            answer = ledger.answers.get(prompts.digest(example, self.teacher))
            if answer is None:
                continue
            text = learnable(answer, self.choices)
            if isinstance(text, tuple):
                left[text[0]] += 1
            else:
                found.append(example.model_copy(update={"answer": text}))
        return found

    def _with(self, parts: Iterable[list[Example]]) -> Parts:
        train, validation = parts
        validation = validation if self.spec.early_stopping is not None else self.parts.validation
        return replace(
            self.parts, train=train, validation=validation, digest=encode.digest(train, validation)
        )

    def _too_few(self, kept: int, left: Counter[Left]) -> Issue:
        words = {
            "cut": "were cut at maxTokens",
            "refused": "were refused by the provider",
            "empty": "are empty",
            "no choice": f"are none of {', '.join(self.choices)}",
        }
        why = "".join(f", {count} {words[reason]}" for reason, count in sorted(left.items()))
        found = f"{kept} of {len(self.train())} answers can be learned by {self.field}, at least {LEAST_ROWS} are needed{why}"
        advice = "say in spec.teacher.system what to answer, raise maxTokens, or give more rows"
        return Issue(FIELD, found, advice)


def learnable(answer: Answer, choices: Sequence[str]) -> str | tuple[Left]:
    """Return the text that is learned, or in a tuple why none is.

    With choices, an answer is the choice that it is but for case, quotes and a full stop around it.
    """
    text = answer.text.strip()
    if answer.finish == "refused" or answer.finish == "content_filter":
        return ("refused",)
    if answer.finish == "length":
        return ("cut",)
    if not text:
        return ("empty",)
    if not choices or text in choices:
        return text
    plain = text.strip(_AROUND).casefold()
    found = [choice for choice in choices if choice.strip(_AROUND).casefold() == plain]
    return found[0] if len(found) == 1 else ("no choice",)


def lesson(plan: CompressPlan, item: Planned, parts: Parts, choices: tuple[str, ...]) -> Lesson | None:
    """Return what a step of a plan is to learn from the plan's teacher; None where it learns its data set's answers."""
    access = plan.external_teacher
    if access is None or not learns(item.spec):
        return None
    assert isinstance(item.spec, TrainingFields)
    return Lesson(item.field, item.spec, parts, choices, access.teacher)


class School:
    """The teacher of one plan, and what its steps learn from it."""

    def __init__(self, plan: CompressPlan, store: Store):
        """Read what was answered before.

        Raises:
            InputError: the plan names no teacher.
        """
        access = plan.external_teacher
        if access is None:
            raise InputError(Issue(FIELD, "the plan names no teacher", "write spec.teacher"))
        self.access, self.teacher = access, access.teacher
        self.store, self.book = store, Book(store, plan.name)

    def known(self, lesson: Lesson) -> bool:
        """Return whether nothing has to be asked for a lesson: all is answered, or the bounds let nothing more be asked."""
        ledger, teacher = self.book.ledger, self.teacher
        missing = lesson.missing(ledger)
        if not missing:
            return True
        most = prompts.most(missing[0], teacher, tariff(teacher.price))
        tight = ledger.tight(most, teacher.max_calls, bound(teacher.max_usd))
        return tight is not None and teacher.when_exhausted == "Train"

    def refusals(self, lessons: Sequence[Lesson]) -> list[Issue]:
        """Return what of the bounds is sure to be passed, before anything is spent."""
        missing = {
            prompts.digest(example, self.teacher)
            for lesson in lessons
            for example in lesson.missing(self.book.ledger)
        }
        left = max(0, self.teacher.max_calls - self.book.ledger.calls)
        if self.teacher.when_exhausted == "Train" or len(missing) <= left:
            return []
        found = f"found {self.teacher.max_calls}, of which {left} are left, and {len(missing)} prompts are to be asked"
        advice = f"write at least {self.book.ledger.calls + len(missing)}, maxExamples in the step, or whenExhausted: Train"
        return [Issue(f"{FIELD}.maxCalls", found, advice)]

    def teach(self, lesson: Lesson, key_file: Path | None, told: Told) -> tuple[Parts, dict[str, float]]:
        """Ask what is missing, and return what the step learns, with figures.

        Args:
            lesson: what the step wants.
            key_file: where the provider's key lies.
            told: see :class:`.asking.Asking`.

        Raises:
            InputError: nothing may or can be asked, a bound is reached, or too few answers can be learned.
            TeacherSilentError: the provider did not answer in time.
        """
        resumed = len(lesson.wanted) - len(lesson.missing(self.book.ledger))
        if not self.known(lesson):
            provider = Provider(self.access, lesson.field, read_key(self.teacher, key_file))
            with disk.refusing_when_full(self.store.root), self.book.writing():
                resumed = len(lesson.wanted) - len(lesson.missing(self.book.ledger))
                asking = Asking(provider, self.book, told)
                asyncio.run(asking.ask(lesson.wanted))
            if asking.reached is not None and self.teacher.when_exhausted == "Fail":
                raise InputError(self._reached(asking.reached, lesson))
        parts, figures = lesson.learned(self.book.ledger)
        return parts, {**figures, "teacherResumed": float(resumed)}

    def _reached(self, name: str, lesson: Lesson) -> Issue:
        ledger, count = self.book.ledger, len(lesson.wanted)
        value = self.teacher.max_calls if name == "maxCalls" else f"{self.teacher.max_usd} US dollars"
        found = (
            f"found {value}; {ledger.calls} calls and {dollars(ledger.spent)} US dollars are spent, "
            f"{count - len(lesson.missing(ledger))} of {count} prompts are answered and kept"
        )
        return Issue(
            f"{FIELD}.{name}", found, "raise it, which goes on from there, or write whenExhausted: Train"
        )
