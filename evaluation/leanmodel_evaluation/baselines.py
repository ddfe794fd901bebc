"""What any lean model must be held against: a constant answer, and TF-IDF with logistic regression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leanmodel_api.parts import Example

from .answers import Answer
from .metrics import METRICS, Judged, Task, choice, judge

STRENGTHS = (1.0, 10.0, 100.0)
TEXT_MODEL = "tfidf-logreg"


@dataclass(frozen=True)
class Constant:
    """Always the commonest choice of the train part."""

    answer: str

    @property
    def name(self) -> str:
        """Name in the report."""
        return f"always-{self.answer}"

    def answers(self, examples: Sequence[Example]) -> list[str]:
        """Return one answer per example."""
        return [self.answer] * len(examples)


@dataclass(frozen=True)
class TextModel:
    """TF-IDF of words and word pairs with logistic regression, tuned on the validation part."""

    pipeline: object
    choices: tuple[str, ...]
    settings: str
    name: str = TEXT_MODEL

    def answers(self, examples: Sequence[Example]) -> list[str]:
        """Return one answer per example."""
        from sklearn.pipeline import Pipeline

        assert isinstance(self.pipeline, Pipeline)
        return [
            self.choices[int(label)]
            for label in self.pipeline.predict([example.plain() for example in examples])
        ]


Baseline = Constant | TextModel


def train_baselines(
    train: Sequence[Example], validation: Sequence[Example], task: Task, metric: str, seed: int
) -> list[Baseline]:
    """Return the baselines that the data allows: none without choices or without a train part.

    Strength of regularisation and class weights are those that do best on the validation part by the
    metric of the proof (without one, on the train part's cross-validation), so that the baseline is as
    hard to beat as a person would make it.
    """
    labelled = [(example, choice(example.answer or "", task.choices)) for example in train]
    labelled = [(example, label) for example, label in labelled if label >= 0]
    if not task.choices or not labelled:
        return []
    labels = np.array([label for _, label in labelled], dtype=np.int64)
    commonest = Counter(labels.tolist()).most_common(1)[0][0]
    found: list[Baseline] = [Constant(task.choices[commonest])]
    if len(set(labels.tolist())) < 2:
        return found
    texts = [example.plain() for example, _ in labelled]
    found.append(_tuned(texts, labels, validation, task, metric, seed))
    return found


def _tuned(
    texts: list[str], labels: np.ndarray[tuple[int], np.dtype[np.int64]], validation: Sequence[Example],
    task: Task, metric: str, seed: int,
) -> TextModel:  # fmt: skip
    if len(validation) < 20:
        cut = max(1, len(texts) // 5)
        held = [Example(id="", text=text, answer=task.choices[int(label)])
                for text, label in zip(texts[:cut], labels[:cut], strict=True)]  # fmt: skip
        fit_texts, fit_labels = texts[cut:], labels[cut:]
    else:
        held, fit_texts, fit_labels = list(validation), texts, labels
    ruler = METRICS[metric if metric in ("BalancedAccuracy", "ChoiceAccuracy", "F1") else "BalancedAccuracy"]
    best: tuple[float, float, str | None] = (-1.0, STRENGTHS[0], None)
    if len(set(fit_labels.tolist())) > 1:
        for strength in STRENGTHS:
            for weights in (None, "balanced"):
                model = _fit(fit_texts, fit_labels, task, strength, weights, seed)
                judged = judged_baseline(model, held, task)
                value = float(ruler.figure(judged, task, np.ones((1, len(judged))))[0])
                if value > best[0]:
                    best = (value, strength, weights)
    return _fit(texts, labels, task, best[1], best[2], seed)


def _fit(
    texts: list[str], labels: np.ndarray[tuple[int], np.dtype[np.int64]], task: Task,
    strength: float, weights: str | None, seed: int,
) -> TextModel:  # fmt: skip
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # liblinear is some fifty times faster on many sparse columns, and knows two classes only.
    solver = "liblinear" if len(np.unique(labels)) == 2 else "lbfgs"
    pipeline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"),
        LogisticRegression(C=strength, class_weight=weights, max_iter=1000, random_state=seed, solver=solver),
    )
    pipeline.fit(texts, labels)
    return TextModel(pipeline, task.choices, f"C {strength:g}, class weights {weights or 'none'}")


def judged_baseline(
    model: Baseline, examples: Sequence[Example], task: Task, large: Sequence[Answer] | None = None
) -> Judged:
    """Return a baseline's answers to a part, judged as a model's are.

    Args:
        large: the large model's answers, for the agreement with them; without, that figure means nothing.
    """
    answers = [Answer(request="", text=text) for text in model.answers(examples)]
    return judge(examples, answers, answers if large is None else large, None, task)
