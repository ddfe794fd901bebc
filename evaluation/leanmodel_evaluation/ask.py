"""Asking every example of a revision at production's concurrency, each once, with what is known kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from leanmodel_api.parts import Example

from .answers import Answer, AnswerBook, Score, request_digest
from .client import Asker, answer_body, score_body

Report = Callable[[int, int], None]
T = TypeVar("T")


async def ask_all(
    asker: Asker, book: AnswerBook, revision: str, examples: Sequence[Example], max_tokens: int,
    concurrency: int, report: Report,
) -> list[Answer]:  # fmt: skip
    """Return one answer per example, in order; those in the book are not asked again.

    Args:
        report: called with (answered, all) as answers come in.
    """
    keys = [
        request_digest(answer_body(asker.model, example, max_tokens, asker.task)[1]) for example in examples
    ]
    missing = {key: example for key, example in zip(keys, examples, strict=True) if book.answer(key) is None}

    async def one(example: Example) -> None:
        book.add(await asker.answer(revision, example, max_tokens))

    await _each(list(missing.values()), one, concurrency, len(set(keys)), report)
    found = [book.answer(key) for key in keys]
    return [answer for answer in found if answer is not None]


async def score_all(
    asker: Asker, book: AnswerBook, revision: str, examples: Sequence[Example], answers: Sequence[Answer],
    concurrency: int, report: Report,
) -> list[Score]:  # fmt: skip
    """Return one score per example, in order: what the model thinks of the wanted answer.

    Args:
        answers: the answers to the same examples; they know how many tokens each prompt has.
    """
    keys = [request_digest(score_body(asker.model, example)[1]) for example in examples]
    missing = {
        key: (example, answer.prompt_tokens)
        for key, example, answer in zip(keys, examples, answers, strict=True)
        if book.score(key) is None
    }

    async def one(item: tuple[Example, int]) -> None:
        book.add(await asker.score(revision, *item))

    await _each(list(missing.values()), one, concurrency, len(set(keys)), report)
    found = [book.score(key) for key in keys]
    return [score for score in found if score is not None]


async def _each(
    items: Sequence[T], work: Callable[[T], Awaitable[None]], concurrency: int, total: int, report: Report
) -> None:
    """Do the work of every item, so many at once; the first failure stops the rest."""
    queue = iter(items)
    done = total - len(items)
    report(done, total)

    async def worker() -> None:
        nonlocal done
        for item in queue:
            await work(item)
            done += 1
            report(done, total)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(items))):
            group.create_task(worker())
