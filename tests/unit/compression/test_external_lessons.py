"""What a step learns from an external teacher: whose prompts are sent, what the bounds do, what it would cost before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from teacher_double import Said, access, completion, teacher

from leanmodel_api.errors import InputError, ManifestError
from leanmodel_api.parts import Example
from leanmodel_api.plan import CompressPlan
from leanmodel_api.progress import ProgressLine
from leanmodel_compression import checks
from leanmodel_compression.external.forecast import forecast
from leanmodel_compression.external.lessons import Lesson, School, lesson
from leanmodel_compression.job import Job
from leanmodel_compression.progress import Reporter
from leanmodel_store.artifacts import Store
from leanmodel_store.datasets import Parts

CHOICES = ("ham", "spam")
STOPPING = {"earlyStopping": {"patience": 1}}


def part(name: str, count: int) -> list[Example]:
    return [Example(id=f"{name}{n}", text=f"{name} {n}", messages=None, answer="own") for n in range(count)]


PARTS = Parts(
    train=part("train", 20), validation=part("validation", 10), fit=part("fit", 5), certify=part("certify", 5),
    report=part("report", 5), test=part("test", 5), digest="sha256:0", duplicates_removed=0, conflicts=0, label_counts={},
)  # fmt: skip


def plan_of(url: str, step: dict[str, Any], **more: Any) -> CompressPlan:
    told = {"type": "Distill", "answers": "Teacher", **step}
    return CompressPlan.model_validate(
        {"name": "tiny", "role": "Lean", "base": f"sha256:{'0' * 64}", "limits": {"memoryBytes": 1},
         "steps": [told], "externalTeacher": access(url, **more)}
    )  # fmt: skip


def lesson_of(plan: CompressPlan, choices: tuple[str, ...] = CHOICES) -> Lesson:
    [item] = checks.planned(plan)
    found = lesson(plan, item, PARTS, choices)
    assert found is not None
    return found


def told(*_: int) -> None:
    """Nobody listens."""


def spam(body: dict[str, Any], number: int) -> Said:
    return completion(
        "spam" if body["messages"][-1]["content"].endswith(("1", "3")) else "ham", prompt=10, answer=2
    )


@pytest.mark.parametrize(
    "step, sent",
    [
        ({}, {"train": 20}),
        ({"maxExamples": 12}, {"train": 12}),
        ({"maxExamples": 12, "maxImbalance": 3}, {"train": 20}),
        (STOPPING, {"train": 20, "validation": 10}),
    ],
)
def test_prompts_of_training_alone_are_sent_and_no_more_than_it_uses(
    tmp_path: Path, step: dict[str, Any], sent: dict[str, int]
) -> None:
    with teacher(spam) as provider:
        plan = plan_of(provider.url, step)
        wanted = lesson_of(plan)
        parts, figures = School(plan, Store(tmp_path)).teach(wanted, None, told)
        assert {(p.split()[0]) for p in provider.prompts()} == set(sent)
        assert len(provider.requests) == sum(sent.values()) == figures["teacherCalls"]
        assert not any("own" in str(body) for body in provider.requests)
    assert [one.id for one in parts.train] == [one.id for one in PARTS.train[: sent["train"]]]
    assert {one.answer for one in parts.train} == {"ham", "spam"}
    taught = "validation" in sent
    assert ({one.answer for one in parts.validation} == {"own"}) != taught
    assert parts.report == PARTS.report and parts.digest != PARTS.digest


def test_answers_that_are_expected_are_as_long_as_they_may_be() -> None:
    plan = plan_of("http://127.0.0.1:1/v1", {"maxExamples": 10}, maxTokens=100)
    labelled, free = lesson_of(plan).expected(), lesson_of(plan, ()).expected()
    assert [one.answer for one in labelled.train] == ["ham", "spam"] * 5
    assert {one.answer for one in free.train} == {"x" * 200} and free.validation == PARTS.validation


def test_a_bound_fails_or_trains_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with teacher(spam) as provider:
        # Each call is charged 14e-6; before it 16 + 16 + 7 or 8 bytes and 8 tokens of the answer are set aside.
        few = plan_of(provider.url, {}, maxUSD="0.0002")
        with pytest.raises(InputError, match=r"spec\.teacher\.maxUSD: found 0\.0002 US dollars; 1[01] calls"):
            School(few, store).teach(lesson_of(few), None, told)
        paid = len(provider.requests)
        train = plan_of(provider.url, {}, maxUSD="0.0002", whenExhausted="Train")
        school = School(train, store)
        assert school.known(lesson_of(train)), "nothing more may be asked, so nothing is"
        parts, figures = school.teach(lesson_of(train), None, told)
        assert len(parts.train) == paid == figures["teacherResumed"] == len(provider.requests)
        assert figures["teacherUSD"] == pytest.approx(paid * 14e-6)
        more = plan_of(provider.url, {})
        _, figures = School(more, store).teach(lesson_of(more), None, told)
        assert figures["teacherResumed"] == paid and len(provider.requests) == 20 == figures["teacherCalls"]
        assert School(few, store).teach(lesson_of(few), None, told)[1]["teacherKept"] == 20


def test_too_few_calls_are_refused_before_any(tmp_path: Path) -> None:
    with teacher(spam) as provider:
        plan = plan_of(provider.url, {}, maxCalls=19)
        school, wanted = School(plan, Store(tmp_path)), lesson_of(plan)
        [issue] = school.refusals([wanted, wanted])
        assert "19 are left, and 20 prompts are to be asked" in str(issue) and "at least 20" in str(issue)
        assert school.refusals([lesson_of(plan_of(provider.url, {"maxExamples": 19}))]) == []
        enough = plan_of(provider.url, {}, maxCalls=19, whenExhausted="Train")
        assert School(enough, Store(tmp_path)).refusals([lesson_of(enough)]) == []
        assert provider.requests == []


def test_what_can_be_learned_of_too_few_answers_is_said_with_the_reasons(tmp_path: Path) -> None:
    def poor(body: dict[str, Any], number: int) -> Said:
        return [completion("maybe"), completion("spam", "length"), completion("")][number % 3]

    with teacher(poor) as provider:
        plan = plan_of(provider.url, {}, concurrency=1)
        with pytest.raises(InputError) as caught:
            School(plan, Store(tmp_path)).teach(lesson_of(plan), None, told)
    words = str(caught.value)
    assert words.startswith("spec.teacher: 0 of 20 answers can be learned by spec.lean.steps[0]")
    assert (
        "7 were cut at maxTokens" in words and "7 are none of ham, spam" in words and "6 are empty" in words
    )


def test_nothing_is_sent_without_permission_and_an_unknown_name_stays_in_its_folder(tmp_path: Path) -> None:
    with teacher(spam) as provider:
        plan = plan_of(provider.url, {})
        closed = plan.model_copy(
            update={"external_teacher": plan.external_teacher.model_copy(update={"permission": "Forbidden"})}  # type: ignore[union-attr]
        )
        assert [issue.field for issue in checks.teacher_issues(closed)] == ["spec.routing.externalProviders"]
        assert [issue.field for issue in checks.teacher_issues(plan)] == []
        with pytest.raises(InputError, match="found Forbidden"):
            School(closed, Store(tmp_path)).teach(lesson_of(closed), None, told)
        assert provider.requests == []
        named = plan.model_copy(update={"name": "../../out"})
        School(named, Store(tmp_path / "inner")).teach(lesson_of(named), None, told)
        assert [path.parent for path in tmp_path.rglob("*.jsonl")] == [tmp_path / "inner" / "teachers"]


def test_what_it_would_cost_is_said_before(tmp_path: Path) -> None:
    with teacher(spam) as provider:
        plan = plan_of(provider.url, {})
        school, wanted = School(plan, Store(tmp_path)), lesson_of(plan)
        before = forecast(school, wanted)
        assert (before.calls, before.answered, before.prompts, before.spent_usd) == (20, 0, 20, "0")
        assert float(before.usd) < float(before.usd_at_most) and provider.requests == []
        school.teach(wanted, None, told)
        spent = school.book.ledger.spent / 10**12
        assert spent <= float(before.usd_at_most)
        after = forecast(School(plan, Store(tmp_path)), wanted)
        assert (after.calls, after.answered, after.usd_at_most, after.spent_calls) == (0, 20, "0", 20)
        assert float(after.spent_usd) == pytest.approx(spent, abs=1e-6)


def test_the_job_itself_ends_before_any_work_where_it_is_forbidden(tmp_path: Path) -> None:
    with teacher(spam) as provider:
        plan = plan_of(provider.url, {})
        for changed in ({"permission": "Forbidden"}, None):
            asked = None if changed is None else plan.external_teacher.model_copy(update=changed)  # type: ignore[union-attr]
            closed = plan.model_copy(update={"external_teacher": asked})
            said: list[ProgressLine] = []
            reporter = Reporter("compress-lean", emit=said.append)
            with pytest.raises(
                ManifestError, match=r"externalProviders: found Forbidden|no teacher is declared"
            ):
                Job(closed, Store(tmp_path), reporter).run()
            assert provider.requests == [] and said == []
