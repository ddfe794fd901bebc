"""What any lean model must be held against: a constant answer, and TF-IDF with logistic regression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from leanmodel_api.parts import Example

from .answers import Answer
from .metrics import METRICS, Judged, Task, choice, judge
from .metrics.vectors import NEIGHBOURS, ROWS, nearest, overlap, unit_vectors

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


@dataclass(frozen=True)
class WordNeighbours:
    """Search by TF-IDF of words: the neighbours that a vector model is to beat. Its vectors are in no model's space."""

    vectorizer: object
    name: str = "tfidf-neighbours"

    def answers(self, examples: Sequence[Example]) -> list[str]:
        """Return no words: it finds texts."""
        return [""] * len(examples)

    def judged(self, examples: Sequence[Example], large: Sequence[Answer], task: Task) -> Judged:
        """Return the share of the large model's nearest texts that a search by words finds among the same texts."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        assert isinstance(self.vectorizer, TfidfVectorizer)
        itself = judge(examples, large, large, None, task)
        k = min(NEIGHBOURS, len(examples) - 1)
        if k < 1:
            return itself
        words, vectors = self.vectorizer.transform([e.plain() for e in examples]), unit_vectors(large)
        found = []
        for at in range(0, len(examples), ROWS):
            own = np.arange(at, min(at + ROWS, len(examples)))
            by_words = nearest(np.asarray((words[own] @ words.T).todense(), dtype=float), own, k)
            found.append(overlap(nearest(vectors[own] @ vectors.T, own, k), by_words))
        return replace(itself, qualities={"NeighborAgreement": np.concatenate(found)})


Baseline = Constant | TextModel | WordNeighbours


def train_baselines(
    train: Sequence[Example], validation: Sequence[Example], task: Task, metric: str, seed: int
) -> list[Baseline]:
    """Return the baselines that the data allows: none without choices or without a train part.

    Strength of regularisation and class weights are those that do best on the validation part by the
    metric of the proof (without one, on the train part's cross-validation), so that the baseline is as
    hard to beat as a person would make it.
    """
    if task.embeds:
        return _words(train)
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


def _words(train: Sequence[Example]) -> list[Baseline]:
    """Return the search by words, whose weights of words come from the train part; none without one."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        return [WordNeighbours(vectorizer.fit([example.plain() for example in train]))]
    except ValueError:
        return []  # no row, or no word in any


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
    if isinstance(model, WordNeighbours):
        return model.judged(examples, large or [], task)
    answers = [Answer(request="", text=text) for text in model.answers(examples)]
    return judge(examples, answers, answers if large is None else large, None, task)
