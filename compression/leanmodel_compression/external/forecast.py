"""What asking a teacher would cost, before anything is asked. Pure but for reading the book."""

from __future__ import annotations

from leanmodel_api.estimate import TeacherEstimate

from . import prompts
from .lessons import CHARACTERS, Lesson, School
from .money import dollars, tariff

# A token of English is about four characters; around an answer stand a few.
USUAL_CHARACTERS = 4
AROUND = 2


def forecast(school: School, lesson: Lesson) -> TeacherEstimate:
    """Return what a step would ask."""
    teacher, ledger = lesson.teacher, school.book.ledger
    prices, missing = tariff(teacher.price), lesson.missing(ledger)
    longest = max((len(choice) for choice in lesson.choices), default=CHARACTERS * teacher.max_tokens)
    answer = min(teacher.max_tokens, AROUND + longest // CHARACTERS)
    about = sum(
        prices.cost(
            sum(len(one["content"]) for one in prompts.messages(example, teacher)) // USUAL_CHARACTERS, answer
        )
        for example in missing
    )
    return TeacherEstimate(
        field=lesson.field,
        model=teacher.external.model,
        base_url=teacher.external.base_url,
        prompts=len(lesson.wanted),
        answered=len(lesson.wanted) - len(missing),
        calls=len(missing),
        usd=dollars(about),
        usd_at_most=dollars(sum(prompts.most(example, teacher, prices) for example in missing)),
        max_calls=teacher.max_calls,
        max_usd=teacher.max_usd,
        spent_calls=ledger.calls,
        spent_usd=dollars(ledger.spent),
    )
