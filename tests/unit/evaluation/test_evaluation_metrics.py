"""Metrics by tables, and what must hold of them for any text."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.datasets import DataSet
from leanmodel_api.parts import Example
from leanmodel_evaluation.answers import Answer, Score
from leanmodel_evaluation.metrics import (
    INVALID,
    METRICS,
    NO_CHOICE,
    Item,
    Task,
    applicable,
    choice,
    compare,
    figures,
    judge,
    promised,
)
from leanmodel_evaluation.metrics.rouge_l import rouge_l
from leanmodel_evaluation.metrics.token_f1 import overlap

SPAM = Task(("ham", "spam"), 1, True)
FREE = Task((), 0, True)


def answer(text: str, error: str | None = None) -> Answer:
    return Answer(request="r", text=text, error=error)


def example(wanted: str | None) -> Example:
    return Example(id="i", text="t", answer=wanted)


def judged(given_texts: list[str], wanted: list[str], task: Task = SPAM, large: list[str] | None = None):
    answers = [answer(text) for text in given_texts]
    others = [answer(text) for text in large or given_texts]
    return judge([example(text) for text in wanted], answers, others, None, task)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ham", 0), (" Spam\n", 1), ("spam.", 1), ("spam because it sells", 1), ("hammer", NO_CHOICE),
        ("", NO_CHOICE), ("it is spam", NO_CHOICE), ("SPAM ham", 1), ("ham\nSMS: next", 0),
    ],
)  # fmt: skip
def test_choice(text: str, wanted: int) -> None:
    assert choice(text, ("ham", "spam")) == wanted


def test_longest_choice_wins() -> None:
    assert choice("not spam at all", ("not", "not spam")) == 1
    assert choice("not", ("not", "not spam")) == 0


@pytest.mark.parametrize(
    ("given_text", "wanted", "f1", "rouge"),
    [
        ("the cat sat", "the cat sat", 1, 1),
        ("a b c d", "a b", 2 * 2 / 6, 2 * 2 / 6),
        ("b a", "a b", 1, 2 * 1 / 4),
        ("x", "y", 0, 0),
        ("", "", 1, 1),
        ("", "a", 0, 0),
        ("a a a", "a", 2 / 4, 2 / 4),
        ("The, Cat!", "the cat", 1, 1),
    ],
)
def test_text_overlap(given_text: str, wanted: str, f1: float, rouge: float) -> None:
    assert overlap(given_text, wanted) == pytest.approx(f1)
    assert rouge_l(given_text, wanted) == pytest.approx(rouge)


def test_exact_match_keeps_punctuation() -> None:
    metric = METRICS["ExactMatch"]
    pairs = [("5", "5", 1), (" 5 ", "5", 1), ("-5", "5", 0), ("Yes  Sir", "yes sir", 1), ("5.", "5", 0)]
    for text, wanted, quality in pairs:
        item = Item(example(wanted), answer(text), answer(text), None)
        assert metric.quality(item, FREE) == quality


def test_figures_of_a_small_table() -> None:
    # 6 ham, 4 spam; one ham called spam, one spam called ham, one spam answered with nonsense.
    wanted = ["ham"] * 6 + ["spam"] * 4
    texts = ["ham"] * 5 + ["spam"] + ["spam", "spam", "ham", "eggs"]
    found = figures(judged(texts, wanted), SPAM, 0)
    assert found["ChoiceAccuracy"].value == pytest.approx(7 / 10)
    assert found["BalancedAccuracy"].value == pytest.approx((5 / 6 + 2 / 4) / 2)
    assert found["F1"].value == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert found[INVALID].value == pytest.approx(1 / 10)
    for figure in found.values():
        assert 0 <= figure.low <= figure.value <= figure.high <= 1
        assert figure.n == 10


def test_a_constant_answer_has_half_balanced_accuracy_and_no_f1() -> None:
    found = figures(judged(["ham"] * 10, ["ham"] * 9 + ["spam"]), SPAM, 0)
    assert found["ChoiceAccuracy"].value == 0.9
    assert found["BalancedAccuracy"].value == 0.5
    assert found["F1"].value == 0


def test_refused_answers_are_wrong() -> None:
    refused = answer("", "too long")
    for task, wanted in ((SPAM, "ham"), (FREE, "")):
        item = Item(example(wanted), refused, answer("ham"), None)
        for metric in applicable(task, False):
            assert metric.quality(item, task) == 0, metric.name


def test_agreement_needs_no_reference_and_compares_choices() -> None:
    metric = METRICS["Agreement"]
    assert metric.quality(Item(example(None), answer("Spam."), answer("spam"), None), SPAM) == 1
    assert metric.quality(Item(example(None), answer("eggs"), answer("spam"), None), SPAM) == 0
    nothing = Task((), 0, False)
    assert metric.quality(Item(example(None), answer("!!"), answer("!!"), None), nothing) == 1
    assert metric.quality(Item(example(None), answer("a b"), answer("a c"), None), nothing) == pytest.approx(
        0.5
    )
    assert [item.name for item in applicable(nothing, False)] == ["Agreement"]


def test_perplexity_weighs_records_by_their_tokens() -> None:
    scores = [
        Score(request="a", nll=math.log(2) * 9, tokens=9),
        Score(request="b", nll=math.log(8), tokens=1),
    ]
    texts = [answer("x"), answer("y")]
    found = judge([example("x"), example("y")], texts, texts, scores, FREE)
    metric = METRICS["Perplexity"]
    value = metric.figure(found, FREE, np.ones((1, 2)))[0]
    assert value == pytest.approx(math.exp((9 * math.log(2) + math.log(8)) / 10))
    assert found.qualities["Perplexity"].tolist() == pytest.approx([1 / 2, 1 / 8])
    assert "Perplexity" not in judge([example("x")], texts[:1], texts[:1], None, FREE).qualities


def test_ratio_of_perplexities_is_large_by_ours() -> None:
    texts = [answer("x")] * 4

    def of(nll: float):
        return judge([example("x")] * 4, texts, texts, [Score(request="a", nll=nll, tokens=1)] * 4, FREE)

    ratio = compare(METRICS["Perplexity"], of(math.log(4)), of(math.log(2)), FREE, 0, ratio=True)
    assert ratio.value == pytest.approx(0.5)


def test_the_pair_takes_each_answer_from_who_gave_it() -> None:
    wanted = ["ham", "spam", "ham", "spam"]
    lean, large = (
        judged(["ham", "ham", "spam", "spam"], wanted),
        judged(["ham", "spam", "ham", "ham"], wanted),
    )
    pair = lean.where(large, np.array([False, True, True, False]))
    assert pair.qualities["ChoiceAccuracy"].tolist() == [1, 1, 1, 1]
    assert pair.given.tolist() == [0, 1, 0, 1]
    assert figures(pair, SPAM, 0)["F1"].value == 1


def test_a_worthless_large_model_makes_no_ratio() -> None:
    wanted = ["ham", "spam"]
    found = compare(
        METRICS["ChoiceAccuracy"], judged(wanted, wanted), judged(["x", "y"], wanted), SPAM, 0, ratio=True
    )
    assert found.n == 0


def test_positive_defaults_to_the_rarest_choice() -> None:
    data = DataSet.model_validate({
        "name": "d", "source": {"uri": "file:x"}, "prompt": {"text": "{a}"}, "answer": "{b}", "choices": ["Spam", "ham"],
    })  # fmt: skip
    assert Task.of(data, {"Spam": 3, "ham": 9}).positive == 0
    assert Task.of(data, {"Spam": 9, "ham": 3}).positive == 1
    assert Task.of(data.model_copy(update={"positive": "Spam"}), {"Spam": 9, "ham": 3}).positive == 0


def test_f1_is_promised_as_balanced_accuracy() -> None:
    assert promised("F1") == "BalancedAccuracy"
    assert promised("TokenF1") == "TokenF1"


texts = st.text(max_size=40)


@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=12), st.booleans())
def test_every_quality_and_figure_is_a_share(rows: list[tuple[str, str, str]], choices: bool) -> None:
    task = SPAM if choices else FREE
    found = judged([row[0] for row in rows], [row[1] for row in rows], task, [row[2] for row in rows])
    for quality in found.qualities.values():
        assert ((quality >= 0) & (quality <= 1)).all()
    for name, figure in figures(found, task, 0).items():
        assert 0 <= figure.low <= figure.value <= figure.high <= 1, name


@given(texts, texts)
def test_overlaps_are_symmetric_and_one_on_equal_texts(left: str, right: str) -> None:
    assert overlap(left, right) == pytest.approx(overlap(right, left))
    assert rouge_l(left, right) == pytest.approx(rouge_l(right, left))
    assert rouge_l(left, right) <= overlap(left, right) + 1e-12
    assert overlap(left, left) == rouge_l(left, left) == 1


@given(st.floats(0, 1e6), st.integers(0, 1000))
def test_inverse_perplexity_is_a_share(nll: float, tokens: int) -> None:
    item = Item(example("x"), answer("x"), answer("x"), Score(request="a", nll=nll, tokens=tokens))
    assert 0 <= METRICS["Perplexity"].quality(item, FREE) <= 1
