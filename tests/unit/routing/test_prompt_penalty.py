"""The prompt's hashed words beside signals of the answer: penalised as heavily as the fit part shows to be right."""

from __future__ import annotations

import numpy as np
import pytest

from leanmodel_api.policy import Record
from leanmodel_routing import figures
from leanmodel_routing.predictors.candidates import LOGPROB_SIGNALS, PROMPT_SIGNAL, Candidate
from leanmodel_routing.predictors.fit import fit_candidate, table_confidences
from leanmodel_routing.predictors.predict import observed_confidence
from leanmodel_routing.table import Table

WORDS = [f"word{index}" for index in range(400)]
ANSWER = Candidate("logprobs", LOGPROB_SIGNALS, "fine")
BOTH = Candidate("logprobs+prompt", (*LOGPROB_SIGNALS, PROMPT_SIGNAL), "benefit")
PROMPT = Candidate("prompt", (PROMPT_SIGNAL,), "benefit")


def records(n, seed, *, topics):
    """n records whose log-probs tell how likely the lean answer is right.

    `topics`: whether the first word does too, beside thirty words drawn by lot; else all are.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        hard = bool(rng.integers(2)) if topics else False
        sure = rng.normal()
        chance = 1 / (1 + np.exp(-(1.5 * sure + 1.5 - (3.5 if hard else 0.0))))
        words = [WORDS[index] for index in rng.integers(len(WORDS), size=30)]
        found.append(
            Record(
                prompt=" ".join(["prove" if hard else "greet", *words] if topics else words),
                lean_quality=float(rng.random() < chance),
                large_quality=float(rng.random() < 0.95),
                lean_logprobs=(float(-np.exp(-sure)), -0.01),
            )
        )
    return Table.of(found)


def area(candidate, fit, judged):
    """Area under quality over the share of large calls, on records that chose nothing."""
    scores = table_confidences(fit_candidate(candidate, fit, 0).predictor, judged)
    return figures.apgr(figures.curve_of(judged, scores))


@pytest.fixture(scope="module")
def talk():
    """Prompts that tell nothing."""
    return records(800, 1, topics=False), records(4000, 2, topics=False)


@pytest.fixture(scope="module")
def topics():
    """Prompts whose first word tells much."""
    return records(800, 3, topics=True), records(4000, 4, topics=True)


def test_prompts_that_tell_nothing_do_not_drown_the_answer(talk):
    assert area(BOTH, *talk) > area(ANSWER, *talk) - 0.02


def test_prompts_that_tell_are_heard(topics):
    assert area(BOTH, *topics) > area(ANSWER, *topics) + 0.02
    assert area(PROMPT, *topics) > 0.6


def test_only_the_prompt_is_penalised(topics):
    fit, _ = topics
    alone, beside = (fit_candidate(candidate, fit, 0).predictor for candidate in (ANSWER, BOTH))
    kept = len(alone.feature_names)
    assert beside.feature_names[:kept] == alone.feature_names
    assert beside.scales[:kept] == pytest.approx(alone.scales)


def test_the_router_reads_the_same_confidence(topics):
    _, judged = topics
    predictor = fit_candidate(BOTH, topics[0], 0).predictor
    on_arrays = table_confidences(predictor, judged)[:50]
    one_by_one = [observed_confidence(predictor, seen) for seen in judged.observations[:50]]
    assert one_by_one == pytest.approx(on_arrays.tolist())
