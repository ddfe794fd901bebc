"""Asking over HTTP: what is sent, what is retried, and that a kept answer is not asked for again."""

import asyncio
import json
from pathlib import Path

import pytest
from evaluation_double import TOKEN, Double, Reply

from leanmodel_api.errors import InputError
from leanmodel_api.parts import Example, Message
from leanmodel_evaluation import client as client_module
from leanmodel_evaluation.answers import Answer, AnswerBook, Score
from leanmodel_evaluation.ask import ask_all, score_all
from leanmodel_evaluation.client import BEST, Asker, EndpointError, parse_answer

TEXTS = [Example(id=str(i), text=f"say {i}", answer="yes") for i in range(12)]
CHATS = [Example(id=str(i), messages=[Message(role="system", content="be"), Message(role="user", content=f"say {i}")])
         for i in range(3)]  # fmt: skip


def echo(prompt: str) -> Reply:
    return Reply(prompt.upper(), logprob=-0.5)


def ask(
    double: Double, folder: Path, examples: list[Example], token: str = TOKEN, revision: str = "large-1"
) -> list[Answer]:
    async def run() -> list[Answer]:
        async with Asker(double.url, "demo", token, 4) as asker:
            with AnswerBook(folder, {"artifact": "x"}).writing() as book:
                return await ask_all(asker, book, revision, examples, 8, 4, lambda done, total: None)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LONGEST_WAIT", 0.01)


def test_both_endpoints_are_asked_greedily_with_logprobs(tmp_path: Path) -> None:
    with Double({"large-1": echo}) as double:
        texts = ask(double, tmp_path, TEXTS[:1])
        chats = ask(double, tmp_path, CHATS[:1])
    text, chat = double.bodies
    assert text == {"model": "demo", "prompt": "say 0", "max_tokens": 8, "temperature": 0, "logprobs": BEST}
    assert chat["messages"] == [{"role": "system", "content": "be"}, {"role": "user", "content": "say 0"}]
    assert (chat["logprobs"], chat["top_logprobs"], chat["temperature"]) == (True, BEST, 0)
    for answer in (texts[0], chats[0]):
        assert answer.text == "SAY 0"
        assert answer.logprobs == [-0.5, -0.001]
        assert answer.top_logprobs == [[-0.5, -2.0], [-0.001, -2.0]]
        assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("stop", 2, 2)


def test_answers_come_in_order_and_are_kept(tmp_path: Path) -> None:
    with Double({"large-1": echo}) as double:
        first = ask(double, tmp_path, TEXTS)
        again = ask(double, tmp_path, TEXTS[::-1])
        assert double.asked_of("large-1") == len(TEXTS)
    assert [answer.text for answer in first] == [f"SAY {i}" for i in range(12)]
    assert again == first[::-1]


def test_equal_prompts_are_asked_once(tmp_path: Path) -> None:
    with Double({"large-1": echo}) as double:
        found = ask(double, tmp_path, [TEXTS[0]] * 5)
        assert double.asked_of("large-1") == 1
    assert len(found) == 5


def test_an_overloaded_engine_is_asked_again(tmp_path: Path) -> None:
    with Double({"large-1": echo}, fail_first=5) as double:
        assert len(ask(double, tmp_path, TEXTS[:3])) == 3


def test_an_endpoint_that_stays_away_ends_the_job_and_keeps_what_came(tmp_path: Path) -> None:
    with Double({"large-1": echo}) as double:
        ask(double, tmp_path, TEXTS[:4])
        double.fail_first = 10_000
        with pytest.raises(ExceptionGroup) as caught:
            ask(double, tmp_path, TEXTS)
        assert caught.group_contains(EndpointError, match="503")
        before = double.asked_of("large-1")
        double.fail_first = 0
        ask(double, tmp_path, TEXTS)
        assert double.asked_of("large-1") == before + len(TEXTS) - 4


@pytest.mark.parametrize(
    ("token", "revision", "field"), [("wrong", "large-1", "--token-file"), (TOKEN, "lean-9", "--endpoint")]
)
def test_a_closed_door_is_not_knocked_at_again(tmp_path: Path, token: str, revision: str, field: str) -> None:
    with Double({"large-1": echo}) as double:
        with pytest.raises(ExceptionGroup) as caught:
            ask(double, tmp_path, TEXTS[:1], token, revision)
        assert caught.group_contains(InputError, match=field)
    assert TOKEN not in str(caught.value)


def test_a_refused_prompt_is_an_answer_of_its_own(tmp_path: Path) -> None:
    def picky(prompt: str) -> Reply:
        return Reply("too long", status=400) if prompt.endswith("1") else echo(prompt)

    with Double({"large-1": picky}) as double:
        found = ask(double, tmp_path, TEXTS[:3])
        assert [answer.error for answer in found] == [None, "too long", None]
        assert ask(double, tmp_path, TEXTS[:3]) == found
        assert double.asked_of("large-1") == 3


def test_scores_leave_the_prompt_out(tmp_path: Path) -> None:
    async def run(double: Double) -> list[Score]:
        async with Asker(double.url, "demo", TOKEN, 4) as asker:
            with AnswerBook(tmp_path, {"artifact": "x"}).writing() as book:
                answers = await ask_all(
                    asker, book, "large-1", CHATS[:1] + TEXTS[:2], 8, 4, lambda d, t: None
                )
                return await score_all(
                    asker, book, "large-1", CHATS[:1] + TEXTS[:2], answers, 4, lambda d, t: None
                )

    with Double({"large-1": lambda prompt: Reply("x", logprob=-0.25)}) as double:
        scores = asyncio.run(run(double))
        assert len(asyncio.run(run(double))) == 3
        sent = [body for body in double.bodies if "prompt_logprobs" in body]
        assert len(sent) == 3
    # The double counts words: "say 0" + "yes" is "say 0yes", of whose 2 tokens the 2 of the prompt are left out.
    for score in scores:
        assert score.nll == pytest.approx(0.25 * score.tokens)
    assert scores[0].tokens == 2  # a chat without a wanted answer: the whole prompt, its first token aside
    assert {body["prompt"] for body in sent if "prompt" in body} == {"say 0yes", "say 1yes"}


def test_a_reply_that_is_not_openai_is_named() -> None:
    with pytest.raises(EndpointError, match="OpenAI"):
        parse_answer("r", {"hello": 1}, 0.1)


def test_a_torn_line_is_cut_off_and_asked_again(tmp_path: Path) -> None:
    book = AnswerBook(tmp_path, {"artifact": "x"})
    with book.writing():
        book.add(Answer(request="a", text="A"))
        book.add(Answer(request="b", text="B"))
    whole = book.path.read_bytes()
    for cut in range(1, 40):
        book.path.write_bytes(whole[:-cut])
        fresh = AnswerBook(tmp_path, {"artifact": "x"})
        with fresh.writing():
            assert fresh.answer("a") is not None and fresh.answer("b") is None
            fresh.add(Answer(request="b", text="B"))
        assert [json.loads(line) for line in fresh.path.read_text().splitlines()] == [
            json.loads(line) for line in whole.splitlines()
        ]


def test_a_damaged_line_is_no_answer(tmp_path: Path) -> None:
    book = AnswerBook(tmp_path, {"artifact": "x"})
    with book.writing():
        book.add(Answer(request="a", text="A"))
    with book.path.open("a") as file:
        file.write('{"answer":{"request":"b"}}\nnoise\n[1]\n')
        file.write('{"answer":{"request":"c","text":"C"}}\n')
    with AnswerBook(tmp_path, {"artifact": "x"}).writing() as fresh:
        assert fresh.answer("a") is not None and fresh.answer("b") is None and fresh.answer("c") is not None


def test_other_weights_have_a_book_of_their_own(tmp_path: Path) -> None:
    assert AnswerBook(tmp_path, {"artifact": "x"}).path != AnswerBook(tmp_path, {"artifact": "y"}).path
