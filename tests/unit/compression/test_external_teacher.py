"""Asking an external teacher: within the bounds whatever it charges, nothing paid for twice, and told to nobody else."""

from __future__ import annotations

import asyncio
import json
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher_double import KEY, Said, completion, declared, failure, teacher

from leanmodel_api.errors import InputError
from leanmodel_api.parts import Example, Message
from leanmodel_api.teacher import Teacher, TeacherAccess
from leanmodel_compression.external import prompts
from leanmodel_compression.external.asking import Asking, TeacherSilentError
from leanmodel_compression.external.book import Answer, Book
from leanmodel_compression.external.lessons import learnable
from leanmodel_compression.external.money import PER_USD, bound, dollars, tariff
from leanmodel_compression.external.provider import Provider, read_key
from leanmodel_store.artifacts import Store
from leanmodel_store.journal import Journal

STEP = "spec.lean.steps[0]"


def examples(count: int) -> list[Example]:
    return [Example(id=str(number), text=f"message {number}", messages=None) for number in range(count)]


def allowed(url: str, **more: Any) -> TeacherAccess:
    return TeacherAccess(permission="Allowed", teacher=Teacher.model_validate(declared(url, **more)))


class Round:
    """Asks a provider, with a clock of its own: waiting takes no time and is written down."""

    def __init__(self, root: Path, access: TeacherAccess, key: str = ""):
        self.book = Book(Store(root), "tiny")
        self.access, self.key, self.waits, self.now = access, key, [], 0.0
        self.told: list[tuple[int, int, int]] = []

    async def _sleep(self, wait: float) -> None:
        self.waits.append(wait)
        self.now += wait

    def ask(self, wanted: list[Example]) -> Asking:
        provider = Provider(self.access, STEP, self.key)
        with self.book.writing():
            asking = Asking(
                provider, self.book, lambda *told: self.told.append(told), self._sleep, lambda: self.now
            )
            asyncio.run(asking.ask({prompts.digest(one, self.access.teacher): one for one in wanted}))
        return asking

    def texts(self, wanted: list[Example]) -> list[str | None]:
        known = self.book.ledger.answers
        found = [known.get(prompts.digest(one, self.access.teacher)) for one in wanted]
        return [None if answer is None else answer.text for answer in found]


def spam(body: dict[str, Any], number: int) -> Said:
    return completion("spam" if int(body["messages"][-1]["content"].split()[-1]) % 2 else "ham")


def test_every_prompt_is_asked_once_and_its_answer_is_found_again(tmp_path: Path) -> None:
    wanted = examples(20)
    with teacher(spam) as provider:
        access = allowed(provider.url, system="Spam or ham?", concurrency=3)
        first = Round(tmp_path, access, KEY)
        assert first.ask(wanted).reached is None
        assert first.texts(wanted) == ["ham", "spam"] * 10
        assert sorted(provider.prompts()) == sorted(one.text or "" for one in wanted)
        assert set(provider.keys) == {f"Bearer {KEY}"} and provider.most <= 3
        body = provider.requests[0]
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("theirs", 8, 0.0)
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        ledger = first.book.ledger
        assert (ledger.calls, ledger.spent) == (20, 20 * (20 * 1 + 3 * 2) * PER_USD // 10**6)
        assert first.told[-1] == (20, 20, ledger.spent)
        again = Round(tmp_path, access, KEY)
        again.ask(wanted + examples(22)[20:])
        assert len(provider.requests) == 22 and again.texts(wanted) == first.texts(wanted)
    assert KEY not in (tmp_path / "teachers" / "tiny.jsonl").read_text()


def test_another_setting_is_another_question_of_the_same_purse(tmp_path: Path) -> None:
    wanted = examples(3)
    with teacher(spam) as provider:
        Round(tmp_path, allowed(provider.url)).ask(wanted)
        other = Round(tmp_path, allowed(provider.url, system="Spam?", maxCalls=5))
        assert other.ask(wanted).reached == "maxCalls"
        assert len(provider.requests) == 5 and other.book.ledger.calls == 5


def test_calls_stop_at_their_bound_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    wanted = examples(10)
    with teacher(spam) as provider:
        small = Round(tmp_path, allowed(provider.url, maxCalls=4))
        assert small.ask(wanted).reached == "maxCalls"
        assert [text is not None for text in small.texts(wanted)] == [True] * 4 + [False] * 6
        assert Round(tmp_path, allowed(provider.url, maxCalls=4)).ask(wanted).reached == "maxCalls"
        assert len(provider.requests) == 4
        assert Round(tmp_path, allowed(provider.url, maxCalls=10)).ask(wanted).reached is None
        assert len(provider.requests) == 10


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_usage_within_max_tokens_passes_the_bound(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    price = st.decimals("0", "100", places=4).map(str)
    count, limit = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 50))
    usd = data.draw(st.decimals("0", "0.02", places=7).map(lambda value: f"{value:f}"))
    charged = Decimal(0)
    prices = {
        "inputUSDPerMillionTokens": data.draw(price),
        "outputUSDPerMillionTokens": data.draw(price),
    }
    kinds = data.draw(st.lists(st.sampled_from(["told", "untold", "lost", "busy", "broken"]), min_size=1))
    used = data.draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, limit)), min_size=1))

    def answer(body: dict[str, Any], number: int) -> Said:
        nonlocal charged
        kind, (share, tokens) = kinds[number % len(kinds)], used[number % len(used)]
        if kind == "busy" or (kind in ("lost", "broken") and number > 20):
            return failure(429) if number < 20 else completion("ham", prompt=1, answer=0)
        # No tokenizer makes more tokens of a text than it has bytes; around a message stand a few.
        most = sum(16 + len(message["content"].encode()) for message in body["messages"])
        prompt = int(share * most)
        cost = Decimal(prices["inputUSDPerMillionTokens"]) * prompt
        charged += (cost + Decimal(prices["outputUSDPerMillionTokens"]) * tokens) / 10**6
        said = completion("ham", prompt=prompt, answer=tokens)
        if kind == "untold":
            return Said(content={"choices": said.content["choices"]})
        return {"lost": Said(hang_up=True), "broken": failure(500)}.get(kind, said)

    wanted = examples(count)
    with teacher(answer) as provider:
        access = allowed(
            provider.url, price=prices, maxUSD=usd, maxTokens=limit, concurrency=data.draw(st.integers(1, 4)),
            maxCalls=data.draw(st.integers(1, 15)), retryFor="24h",
        )  # fmt: skip
        run = Round(tmp_path_factory.mktemp("bound"), access)
        run.ask(wanted)
        assert charged <= Decimal(usd)
        assert charged <= Decimal(run.book.ledger.spent) / PER_USD <= Decimal(usd)
        assert run.book.ledger.calls <= access.teacher.max_calls
        asked = len(provider.requests)
        if run.ask(wanted).reached is not None:
            assert len(provider.requests) == asked


def test_a_call_that_a_kill_left_unsettled_counts_as_the_most(tmp_path: Path) -> None:
    wanted = examples(2)
    with teacher(spam) as provider:
        access = allowed(provider.url, maxCalls=2)
        book = Book(Store(tmp_path), "tiny")
        most = prompts.most(wanted[0], access.teacher, tariff(access.teacher.price))
        with book.writing():
            book.asked(prompts.digest(wanted[0], access.teacher), most)
        with (tmp_path / "teachers" / "tiny.jsonl").open("a") as file:
            file.write('{"kind":"answered","call":1,"text":"torn')
        run = Round(tmp_path, access)
        assert (run.book.ledger.calls, run.book.ledger.spent, run.book.ledger.lost) == (1, most, 1)
        assert run.ask(wanted).reached == "maxCalls"
        assert run.texts(wanted) == ["ham", None] and len(provider.requests) == 1


def test_what_a_provider_counts_beyond_reason_is_set_aside_for_the_next_calls(tmp_path: Path) -> None:
    with teacher(lambda body, number: completion("ham", prompt=1_000_000)) as provider:
        run = Round(tmp_path, allowed(provider.url, maxUSD="2.5", concurrency=1))
        assert run.ask(examples(5)).reached == "maxUSD"
        assert len(provider.requests) == 2 and run.book.ledger.spent < 2.5 * PER_USD


@pytest.mark.parametrize(
    "first, waits",
    [
        (failure(429, retry_after="7"), (7.0, 7.5)),
        (failure(503), (0.5, 1.0)),
        (failure(500), (0.5, 1.0)),
        (Said(hang_up=True), (0.5, 1.0)),
    ],
)
def test_what_may_pass_is_asked_again(tmp_path: Path, first: Said, waits: tuple[float, float]) -> None:
    with teacher(lambda body, number: first if number == 0 else completion("ham")) as provider:
        run = Round(tmp_path, allowed(provider.url))
        run.ask(examples(1))
        assert run.texts(examples(1)) == ["ham"] and len(provider.requests) == 2
        assert len(run.waits) == 1 and waits[0] <= run.waits[0] <= waits[1]
        # 429 and 503 are turned away; after a 500 or a broken connection the call may be charged.
        charged = first.status == 500 or first.hang_up
        assert run.book.ledger.calls == (2 if charged else 1)


def test_a_silent_provider_ends_the_job_and_keeps_what_was_answered(tmp_path: Path) -> None:
    with teacher(lambda body, number: completion("ham") if number < 3 else failure(503)) as provider:
        run = Round(tmp_path, allowed(provider.url, concurrency=1, retryFor="30s"))
        with pytest.raises(TeacherSilentError, match=r"retryFor.*3 of 6 are answered and kept"):
            run.ask(examples(6))
        assert run.now <= 30 and run.texts(examples(6))[:3] == ["ham"] * 3


@pytest.mark.parametrize(
    "said, words",
    [
        (failure(401, f"Incorrect API key provided: {KEY}"), r"apiKeySecret: .*does not accept the key"),
        (failure(403), r"apiKeySecret: .*does not accept the key"),
        (failure(402), r"apiKeySecret: .*quota for this key is used up"),
        (failure(429, code="insufficient_quota"), r"apiKeySecret: .*quota for this key is used up"),
        (
            failure(404, "no such model"),
            r"spec\.teacher\.external: .*no such model.*correct baseUrl or model",
        ),
        (Said(302, headers={"location": "http://127.0.0.1:9/v1/chat/completions"}), r"answered HTTP 302"),
    ],
)
def test_what_cannot_pass_is_one_clear_error(tmp_path: Path, said: Said, words: str) -> None:
    with teacher(lambda body, number: said) as provider:
        run = Round(tmp_path, allowed(provider.url, concurrency=1), KEY)
        with pytest.raises(InputError, match=words) as caught:
            run.ask(examples(5))
        assert len(provider.requests) == 1 and KEY not in str(caught.value)
        assert run.book.ledger.spent == 0 and not run.book.ledger.under_way


def test_refused_prompts_are_left_alone_but_a_refused_request_is_an_error(tmp_path: Path) -> None:
    def some(body: dict[str, Any], number: int) -> Said:
        return failure(400, "filtered") if number in (0, 2) else completion("ham")

    with teacher(some) as provider:
        run = Round(tmp_path, allowed(provider.url, concurrency=1))
        run.ask(examples(5))
        assert run.texts(examples(5)) == ["", "ham", "", "ham", "ham"] and run.book.ledger.calls == 3
        Round(tmp_path, allowed(provider.url)).ask(examples(5))
        assert len(provider.requests) == 5
    with teacher(lambda body, number: failure(400, "temperature: message 0 is unsupported")) as provider:
        run = Round(tmp_path / "other", allowed(provider.url, concurrency=1))
        with pytest.raises(InputError, match=r"refused every prompt \(HTTP 400: temperature: \[…\] is"):
            run.ask(examples(40))
        assert len(provider.requests) == 8 and run.book.ledger.answers == {}


def test_many_refusals_before_a_slow_first_answer_end_nothing(tmp_path: Path) -> None:
    refused = threading.Semaphore(0)

    def slow(body: dict[str, Any], number: int) -> Said:
        if body["messages"][-1]["content"] == "message 0":
            for _ in range(8):
                assert refused.acquire(timeout=30)
        elif int(body["messages"][-1]["content"].split()[-1]) <= 8:
            refused.release()
            return failure(400, "filtered")
        return completion("ham")

    with teacher(slow) as provider:
        run = Round(tmp_path, allowed(provider.url, concurrency=2))
        run.ask(examples(20))
        assert run.texts(examples(20)) == ["ham"] + [""] * 8 + ["ham"] * 11 and len(provider.requests) == 20


def test_a_model_that_wants_the_newer_limit_gets_it(tmp_path: Path) -> None:
    def newer(body: dict[str, Any], number: int) -> Said:
        if "max_tokens" in body:
            return failure(400, "Unsupported parameter: use 'max_completion_tokens' instead.")
        return completion("ham")

    with teacher(newer) as provider:
        run = Round(tmp_path, allowed(provider.url, concurrency=3))
        run.ask(examples(9))
        assert run.texts(examples(9)) == ["ham"] * 9 and len(provider.requests) <= 12
        assert provider.requests[-1]["max_completion_tokens"] == 8


def test_without_permission_there_is_no_client(tmp_path: Path) -> None:
    with teacher(spam) as provider:
        for access in (None, TeacherAccess(teacher=allowed(provider.url).teacher)):
            with pytest.raises(
                InputError, match=r"externalProviders: found Forbidden|no teacher is declared"
            ):
                Provider(access, STEP, "")
        assert provider.requests == []


def test_the_key_is_read_from_its_file_and_told_to_nobody(tmp_path: Path) -> None:
    external = {"baseUrl": "https://api.example.com/v1", "model": "m", "apiKeySecret": "theirs"}
    wanted = Teacher.model_validate({**declared("https://x.example"), "external": external})
    file = tmp_path / "apiKey"
    with pytest.raises(InputError, match="was given no key"):
        read_key(wanted, None)
    with pytest.raises(InputError, match="cannot be read"):
        read_key(wanted, file)
    for bad in ("", f"{KEY} and more"):
        file.write_text(bad)
        with pytest.raises(InputError, match="apiKeySecret: found theirs") as caught:
            read_key(wanted, file)
        assert KEY not in str(caught.value)
    file.write_text(f"{KEY}\n")
    assert read_key(wanted, file) == KEY
    assert read_key(Teacher.model_validate(declared("https://x.example")), None) == ""


@pytest.mark.parametrize(
    "answer, choices, learned",
    [
        (Answer(" Paris. ", "stop"), (), "Paris."),
        (Answer("Par", "length"), (), ("cut",)),
        (Answer("", "stop"), (), ("empty",)),
        (Answer("", "refused"), (), ("refused",)),
        (Answer("no", "content_filter"), (), ("refused",)),
        (Answer("**Spam**.", "stop"), ("ham", "spam"), "spam"),
        (Answer("spam, I think", "stop"), ("ham", "spam"), ("no choice",)),
        (Answer("a", "stop"), ("A", "a."), ("no choice",)),
        (Answer("A", "stop"), ("A", "a."), "A"),
    ],
)
def test_what_of_an_answer_is_learned(answer: Answer, choices: tuple[str, ...], learned: Any) -> None:
    assert learnable(answer, choices) == learned


def test_a_system_message_takes_the_place_of_the_data_sets_own() -> None:
    own = [Message(role="system", content="old"), Message(role="user", content="hi")]
    chat = Example(id="1", messages=own, text=None, answer="secret answer")
    plain = Teacher.model_validate(declared("https://x.example/v1/"))
    told = plain.model_copy(update={"system": "new"})
    assert [one["content"] for one in prompts.messages(chat, plain)] == ["old", "hi"]
    assert [one["content"] for one in prompts.messages(chat, told)] == ["new", "hi"]
    assert "secret answer" not in json.dumps(prompts.body(chat, told))
    same = plain.model_copy(update={"max_calls": 1, "max_usd": "9", "concurrency": 9})
    assert prompts.digest(chat, plain) == prompts.digest(chat, same) != prompts.digest(chat, told)


@given(usd=st.decimals("0", "1000", places=13), price=st.decimals("0", "1000", places=9))
def test_money_is_rounded_to_the_bounds_side(usd: Decimal, price: Decimal) -> None:
    assert Decimal(bound(f"{usd:f}")) <= usd * PER_USD < Decimal(bound(f"{usd:f}")) + 1
    charged = Teacher.model_validate(
        declared("https://x.example", price={"inputUSDPerMillionTokens": f"{price:f}", "outputUSDPerMillionTokens": "0"})
    )  # fmt: skip
    assert tariff(charged.price).cost(10**6, 0) >= price * PER_USD
    assert dollars(PER_USD // 80) == "0.0125"


def test_lines_outlive_a_torn_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "folder" / "a.jsonl")
    assert journal.lines() == []
    with pytest.raises(RuntimeError, match="not open"):
        journal.append({"a": 1})
    with journal.writing():
        journal.append({"a": 1})
    with journal.path.open("a") as file:
        file.write('[1]\n{"b": 2')
    assert journal.lines() == [{"a": 1}]
    with journal.writing():
        journal.append({"c": "ä"}, durable=True)
    assert journal.lines() == [{"a": 1}, {"c": "ä"}]
