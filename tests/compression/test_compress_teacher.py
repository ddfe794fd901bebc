"""An external teacher through the whole Job: its answers are learned, paid for once, and never more than is allowed."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import Process, data_set, lean_plan, plan_of, run_plan
from encoder_making import TASK, make_encoder, texts_set
from teacher_double import KEY, Said, access, completion, failure, teacher

from leanmodel_api.errors import InputError, ManifestError, RefusedError
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.progress import ProgressLine
from leanmodel_compression.estimate import estimate
from leanmodel_compression.job import Job
from leanmodel_compression.progress import Reporter
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.slow, pytest.mark.timeout(900)]

ALL_TRAIN = {"train": "1", "validation": "0", "fit": "0", "certify": "0", "report": "0", "test": "0"}
DISTILL = {
    "type": "Distill",
    "answers": "Teacher",
    "labelWeight": "1",
    "learningRate": "0.005",
    "maxLength": 64,
}


def judged(text: str) -> str:
    """What the teacher says of a message: the contrary of what the data set has."""
    return "ham" if int(text.split()[-1]) % 3 == 0 else "spam"


def answer(body: dict[str, Any], number: int) -> Said:
    return completion(judged(body["messages"][-1]["content"]), prompt=10, answer=2)


def taught(
    large: CompressResult, data_file: Path, url: str, step: dict[str, Any] = DISTILL, **more: Any
) -> CompressPlan:
    """A student that learns of the external teacher."""
    fields = {"externalTeacher": access(url), **more}
    return lean_plan(large, data_file, [step], **fields)


def test_learning_of_a_teacher_is_learning_a_data_set_with_its_answers(
    store: Store, large: CompressResult, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    labelled = tmp_path / "labelled.tsv"
    labelled.write_text("label\tmsg\n" + "".join(f"{judged(text)}\t{text}\n" for _, text in texts))
    own = {**DISTILL, "answers": "DataSet"}
    known = lean_plan(large, labelled, [own], dataSets=[data_set(labelled, split=ALL_TRAIN)])
    unlabelled = data_set(data_file, split=ALL_TRAIN)
    del unlabelled["answer"]
    with teacher(answer) as provider:
        plan = taught(large, data_file, provider.url, dataSets=[unlabelled])
        made = run_plan(plan, store)
        assert sorted(provider.prompts()) == sorted(text for _, text in texts)
    [step] = made.steps
    # 240 calls of 10 tokens at a dollar and 2 at two dollars per million.
    asked = {name: value for name, value in step.figures.items() if name.startswith("teacher")}
    assert asked.pop("teacherUSD") == pytest.approx(240 * 14e-6)
    assert asked == {
        "teacherPrompts": 240, "teacherCalls": 240, "teacherPromptTokens": 2400, "teacherAnswerTokens": 480,
        "teacherKept": 240, "teacherLeftOut": 0, "teacherResumed": 0,
    }  # fmt: skip
    again = run_plan(known, store)
    assert again.artifact == made.artifact and again.steps[0].cached


def test_only_prompts_that_training_sees_are_sent_and_finished_work_asks_for_nothing(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    stopping = {**DISTILL, "epochs": "2", "earlyStopping": {"patience": 1}}
    with teacher(answer) as provider:
        plan = taught(large, data_file, provider.url, stopping)
        parts = datasets.load(plan.data_sets[0], Path(), store, field="spec.dataSets[0]")
        made = run_plan(plan, store)
        seen = {example.plain() for example in (*parts.train, *parts.validation)}
        assert set(provider.prompts()) == seen and len(provider.requests) == len(seen)
        assert all(body["messages"][0]["content"] == "Spam or ham?" for body in provider.requests)
        assert run_plan(plan, store).artifact == made.artifact
        few = taught(large, data_file, provider.url, {**DISTILL, "maxExamples": 20})
        assert run_plan(few, store).steps[0].figures["teacherResumed"] == 20
        assert len(provider.requests) == len(seen)


def test_a_killed_job_asks_for_no_answer_twice(
    store: Store, large: CompressResult, data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    key = tmp_path / "apiKey"
    key.write_text(KEY)
    reached, go_on = threading.Semaphore(0), threading.Event()

    def held(body: dict[str, Any], number: int) -> Said:
        if number >= 40:
            reached.release()
            go_on.wait(120)
        return answer(body, number)

    with teacher(held) as provider:
        external = {"baseUrl": provider.url, "model": "theirs", "apiKeySecret": "their-key"}
        plan = taught(
            large,
            data_file,
            provider.url,
            externalTeacher=access(provider.url, external=external, concurrency=3),
        )
        first = Process(plan, store.root, tmp_path / "first", "--teacher-key-file", str(key))
        # Three at once: when three are held, every call before them is settled, and no other can begin.
        assert all(reached.acquire(timeout=120) for _ in range(3))
        first.kill()
        go_on.set()
        before = provider.prompts()
        answered = len(answers(store))
        assert (len(before), answered) == (43, 40)
        lines: list[ProgressLine] = []
        made = Job(plan, store, Reporter("compress-lean", emit=lines.append), [], key).run()
        after = provider.prompts()[len(before) :]
        assert set(before) & set(after) == set(before[40:])
        assert len(set(before) | set(after)) == made.steps[0].figures["teacherPrompts"] == 96
        assert made.steps[0].figures["teacherResumed"] == answered == 96 - len(after)
        # Those that were under way may have been charged: they count twice.
        assert made.steps[0].figures["teacherCalls"] == len(before) + len(after)
        assert set(provider.keys) == {f"Bearer {KEY}"}

        other = Store(tmp_path / "other")
        run_plan(plan_of(source={"uri": f"file:{model_folder}"}), other)
        quiet = Job(plan, other, Reporter("compress-lean", emit=lambda line: None), [], key).run()
        assert quiet.artifact == made.artifact
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path != key]
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]
    assert any("asking the external teacher" in line.message for line in lines)
    assert not any(KEY in line.message for line in [*first.lines, *lines])


def answers(store: Store) -> list[dict[str, Any]]:
    """The whole answers of a store's book."""
    lines = (store.root / "teachers" / "tiny.jsonl").read_text().split("\n")[:-1]
    return [line for line in map(json.loads, lines) if line["kind"] == "answered"]


def test_a_bound_ends_the_job_or_the_asking_as_the_manifest_says(
    store: Store, large: CompressResult, data_file: Path
) -> None:
    with teacher(answer) as provider:
        # What is sure to be too little is said before anything is paid for.
        with pytest.raises(
            ManifestError, match=r"spec\.teacher\.maxCalls: .*50 are left, and 96 prompts .*at least 96"
        ):
            run_plan(
                taught(large, data_file, provider.url, externalTeacher=access(provider.url, maxCalls=50)),
                store,
            )
        assert provider.requests == []
        # One call may cost 2 * 16 + 16 + len("Spam or ham?") + the message's bytes, and 16 of the answer.
        small = access(provider.url, maxUSD="0.0005")
        with pytest.raises(
            InputError, match=r"spec\.teacher\.maxUSD: found 0\.0005 US dollars; (\d+) calls"
        ) as caught:
            run_plan(taught(large, data_file, provider.url, externalTeacher=small), store)
        paid = len(provider.requests)
        assert 20 < paid < 36 and f"{paid} of 96 prompts are answered and kept" in str(caught.value)
        enough = taught(
            large,
            data_file,
            provider.url,
            externalTeacher={**small, "teacher": {**small["teacher"], "whenExhausted": "Train"}},
        )
        made = run_plan(enough, store)
        assert made.steps[0].figures["teacherKept"] == paid == len(provider.requests)
        assert made.steps[0].figures["teacherUSD"] <= 0.0005
        assert run_plan(enough, store).steps[0].cached
        more = run_plan(taught(large, data_file, provider.url), store)
        assert more.steps[0].figures["teacherResumed"] == paid and len(provider.requests) == 96


def test_nothing_leaves_where_it_is_forbidden_or_the_work_does_not_fit(
    store: Store, large: CompressResult, data_file: Path, model_folder: Path
) -> None:
    with teacher(answer) as provider:
        closed = access(provider.url, "Forbidden")
        for told in (closed, {"teacher": closed["teacher"]}):
            plan = taught(large, data_file, provider.url, externalTeacher=told)
            with pytest.raises(ManifestError, match=r"spec\.routing\.externalProviders: found Forbidden"):
                run_plan(plan, store)
            source = plan_of(source={"uri": f"file:{model_folder}"}, dataSets=plan.data_sets)
            early = plan.model_copy(update={"base": None, "teacher": None})
            with pytest.raises(ManifestError, match="externalProviders"):
                run_plan(source, store, [early])
        with pytest.raises(ManifestError, match=r"spec\.lean\.steps\[0\]\.answers: .*no teacher is declared"):
            run_plan(lean_plan(large, data_file, [DISTILL]), store)
        with pytest.raises(RefusedError, match=r"spec\.jobs\.compress\.memory"):
            run_plan(
                taught(large, data_file, provider.url, limits={"memoryBytes": 2**20, "threads": 1}), store
            )
        secret = {"baseUrl": provider.url, "model": "theirs", "apiKeySecret": "their-key"}
        with pytest.raises(InputError, match="apiKeySecret: found their-key, and the Job was given no key"):
            run_plan(
                taught(large, data_file, provider.url, externalTeacher=access(provider.url, external=secret)),
                store,
            )
        assert provider.requests == []


def test_the_large_model_learns_too_and_a_wrong_key_is_one_error(
    store: Store, data_file: Path, model_folder: Path
) -> None:
    plan = plan_of(
        source={"uri": f"file:{model_folder}"}, dataSets=[data_set(data_file)],
        finetune={"answers": "Teacher", "epochs": "1", "learningRate": "0.005"},
    )  # fmt: skip
    with teacher(lambda body, number: failure(401)) as wrong:
        asking = plan.model_copy(update={"external_teacher": told(wrong.url)})
        with pytest.raises(
            InputError, match=r"^spec\.teacher\.external\.apiKeySecret: .*does not accept the key"
        ):
            run_plan(asking, store)
    with teacher(answer) as provider:
        made = run_plan(plan.model_copy(update={"external_teacher": told(provider.url)}), store)
        assert made.steps[-1].figures["teacherKept"] == 96


def told(url: str) -> Any:
    return plan_of(externalTeacher=access(url)).external_teacher


def test_a_classifier_learns_labels_and_leaves_out_what_is_none(
    store: Store, data_file: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    encoder = make_encoder(tmp_path / "bert", texts, layers=2)

    def labels(body: dict[str, Any], number: int) -> Said:
        text = body["messages"][-1]["content"]
        if int(text.split()[-1]) % 10 == 0:
            return completion("I would say it is spam.")
        return completion(f"{judged(text).title()}.")

    with teacher(labels) as provider:
        tuned = {"answers": "Teacher", "epochs": "2", "learningRate": "0.01", "maxLength": 32}
        plan = plan_of(
            source={"uri": f"file:{encoder}"}, finetune=tuned, dataSets=[texts_set(data_file)], maxModelLength=64,
            task=TASK, externalTeacher=access(provider.url, system="Answer with one word: ham or spam."),
        )  # fmt: skip
        figures = next(step for step in run_plan(plan, store).steps if step.type == "Finetune").figures
        left = sum(int(text.split()[-1]) % 10 == 0 for text in provider.prompts())
        assert left and figures["teacherLeftOut"] == left and figures["teacherKept"] == 96 - left
        assert {body["messages"][0]["content"] for body in provider.requests} == {
            "Answer with one word: ham or spam."
        }

    with teacher(lambda body, number: completion("maybe")) as provider:
        useless = plan.model_copy(update={"external_teacher": told(provider.url)})
        with pytest.raises(
            InputError, match=r"spec\.teacher: 0 of 96 answers can be learned .*96 are none of ham, spam"
        ):
            run_plan(useless, store)


def test_the_estimate_says_what_asking_would_cost_and_asks_nothing(
    store: Store, large: CompressResult, data_file: Path, model_folder: Path
) -> None:
    with teacher(answer) as provider:
        source = plan_of(source={"uri": f"file:{model_folder}"})
        plan = taught(large, data_file, provider.url).model_copy(update={"base": None, "teacher": None})
        [before] = estimate([source, plan], store).teacher
        assert (before.prompts, before.answered, before.calls) == (96, 0, 96) and provider.requests == []
        assert 0 < float(before.usd) < float(before.usd_at_most) < 0.02
        tight = plan.model_copy(
            update={
                "external_teacher": plan_of(externalTeacher=access(provider.url, maxCalls=9)).external_teacher
            }
        )
        assert any("spec.teacher.maxCalls" in line for line in estimate([source, tight], store).refusals)
        made = run_plan(taught(large, data_file, provider.url), store)
        assert made.steps[0].figures["teacherUSD"] < float(before.usd_at_most)
        [after] = estimate([source, plan], store).teacher
        assert (after.answered, after.calls, after.usd_at_most, after.spent_calls) == (96, 0, "0", 96)
