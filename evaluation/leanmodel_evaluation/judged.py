"""From answers to judged parts, figures of models, pair and baselines, and examples of difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmodel_api.parts import Example
from leanmodel_api.plan import ProvePlan
from leanmodel_api.policy import Policy, Record
from leanmodel_api.report import DifferentAnswer, Estimate, ModelFigures
from leanmodel_routing.decide import Decider

from .answers import Answer
from .asked import Asked
from .baselines import Baseline, judged_baseline
from .costs import request_costs
from .intervals import Floats, around, resamples
from .metrics import METRICS, Metric, Task, figures, judge, strata
from .metrics.vectors import unit_vectors
from .records import PartAnswers
from .speed import Comparison

Mask = NDArray[np.bool_]
ASKED_PARTS = ("fit", "certify", "report", "test")
MOST_EXAMPLES = 40
LOTS = 40
"""Draws by lot behind the baseline 'random'."""


def judged_parts(
    plan: ProvePlan, examples: dict[str, list[Example]], asked: Asked, task: Task
) -> dict[str, PartAnswers]:
    """Return the asked parts with both models' answers judged and priced.

    Args:
        examples: by part, in the order in which ``asked`` holds their answers one after the other.
    """
    found, at = {}, 0
    # The lean model's rate by the pairs of blocks: what else the machine did in its own ones alone is no cost of it.
    large_rate = asked.speed.large.requests_per_second.value
    lean_rate = large_rate * asked.speed.ratio.value
    for name in ASKED_PARTS:
        mine = slice(at, at + len(examples[name]))
        at = mine.stop
        large, lean = asked.large[mine], asked.lean[mine]
        large_scores = asked.large_scores[mine] if asked.large_scores is not None else None
        lean_scores = asked.lean_scores[mine] if asked.lean_scores is not None else None
        found[name] = PartAnswers(
            name=name,
            examples=examples[name],
            large=large,
            lean=lean,
            judged_large=judge(examples[name], large, large, large_scores, task),
            judged_lean=judge(examples[name], lean, large, lean_scores, task),
            large_costs=request_costs(plan.large_price, large, large_rate),
            lean_costs=request_costs(plan.lean_price, lean, lean_rate),
        )
    return found


@dataclass(frozen=True)
class Routed:
    """What the router does with n records; arrays [n].

    Attributes:
        confidence: of the lean answer where the policy can tell it, else of the prompt; NaN where it tells neither.
        asked: whether the lean model is asked.
        escalated: whether the large model answers.
    """

    confidence: Floats
    asked: Mask
    escalated: Mask


def routes(policy: Policy, records: Sequence[Record]) -> Routed:
    """Return what the router does with each record.

    The router's own :class:`Decider` decides, so that what is reported is what will be done.
    """
    decider = Decider(policy)
    confidence = np.full(len(records), np.nan)
    asked, escalated = np.zeros((2, len(records)), dtype=np.bool_)
    for row, record in enumerate(records):
        first = decider.first(record.prompt_text, record.group)
        sure = decider.confidence(
            record.lean_logprobs, record.lean_top_logprobs, record.lean_answer, record.lean_finish_reason,
            prompt=record.prompt_text, schema=record.response_schema,
        )  # fmt: skip
        kept = decider.accept(sure, record.group) if first.route == "try" else first.route == "lean"
        asked[row], escalated[row] = first.route != "large", not kept
        if policy.predictor is not None:
            confidence[row] = sure
        elif first.score is not None:
            confidence[row] = first.score
    return Routed(confidence, asked, escalated)


def model_figures(
    part: PartAnswers, escalated: Mask, baselines: Sequence[Baseline], task: Task, metric: Metric, seed: int
) -> list[ModelFigures]:
    """Return the figures of large, lean, pair, random, oracle and the baselines on one part."""
    large, lean = part.judged_large, part.judged_lean
    share = float(escalated.mean()) if len(escalated) else 0.0
    better = large.qualities[metric.name] > lean.qualities[metric.name]
    listed = [
        ("large", large, 1.0),
        ("lean", lean, 0.0),
        ("pair", lean.where(large, escalated), share),
        ("oracle", lean.where(large, better), float(better.mean()) if len(better) else 0.0),
        *(
            (baseline.name, judged_baseline(baseline, part.examples, task, part.large), None)
            for baseline in baselines
        ),
    ]
    found = [
        ModelFigures(name=name, part=part.name, figures=figures(judged, task, seed), large_share=large_share)
        for name, judged, large_share in listed
    ]
    by_lot = {
        name: _by_lot(METRICS[name], part, share, task, seed) for name in found[0].figures if name in METRICS
    }
    found.insert(3, ModelFigures(name="random", part=part.name, figures=by_lot, large_share=share))
    return found


def _by_lot(metric: Metric, part: PartAnswers, share: float, task: Task, seed: int) -> Estimate:
    """Return a metric where the large model answers a share of the requests by lot."""
    generator = np.random.default_rng(seed)
    n = len(part)
    points, draws = [], []
    for index in range(LOTS):
        pair = part.judged_lean.where(part.judged_large, generator.random(n) < share)
        points.append(float(metric.figure(pair, task, np.ones((1, n)))[0]))
        draws += [metric.figure(pair, task, counts) for counts in resamples(strata(pair), 25, seed + index)]
    return around(float(np.mean(points)), np.concatenate(draws), n)


def saving(part: PartAnswers, routed: Routed, speed: Comparison, seed: int) -> Estimate | None:
    """Return the share of the large model's cost that routing avoids, or None without prices.

    The interval resamples records and, where prices are per hour, the measured blocks of speed.
    """
    if part.large_costs is None or part.lean_costs is None or not len(part):
        return None
    n = len(part)
    generator = np.random.default_rng(seed)
    lean_cost: Floats = np.where(routed.asked, part.lean_costs, 0.0)
    escalation: Floats = np.where(routed.escalated, part.large_costs, 0.0)
    counts = np.concatenate(list(resamples(np.zeros(n, dtype=np.int64), seed=seed)))
    whole = counts @ part.large_costs
    if not part.large_costs.sum() > 0:
        return None
    hourly = bool(np.ptp(part.lean_costs) == 0 and np.ptp(part.large_costs) == 0)
    drift: Floats = (
        speed.ratio.value / generator.permutation(speed.ratio_draws) if hourly else np.ones(len(counts))
    )
    draws: Floats = 1 - (counts @ lean_cost * drift[: len(counts)] + counts @ escalation) / whole
    value = 1 - float((lean_cost.sum() + escalation.sum()) / part.large_costs.sum())
    return around(value, draws, n)


def different(part: PartAnswers, routed: Routed, metric: str) -> tuple[list[DifferentAnswer], int]:
    """Return examples on which the models differ, and how many there are.

    Those where the pair's answer is worse than the large model's come first, then by the loss of quality.
    """
    confidence, escalated = routed.confidence, routed.escalated
    loss = part.judged_large.qualities[metric] - part.judged_lean.qualities[metric]
    apart = [
        index for index in range(len(part))
        if part.large[index].text.strip() != part.lean[index].text.strip() or loss[index] != 0
    ]  # fmt: skip
    apart.sort(
        key=lambda index: (
            -(loss[index] * (not escalated[index])),
            -abs(loss[index]),
            part.examples[index].id,
        )
    )
    found = [
        DifferentAnswer(
            prompt=_shortened(part.examples[index].plain()),
            wanted=part.examples[index].answer,
            large=_shortened(_said(part.large[index])),
            lean=_shortened(_said(part.lean[index], part.large[index])),
            confidence=None if np.isnan(confidence[index]) else float(confidence[index]),
            route="large" if escalated[index] else "lean",
        )
        for index in apart[:MOST_EXAMPLES]
    ]
    return found, len(apart)


def _said(answer: Answer, large: Answer | None = None) -> str:
    """Return an answer in words; of a vector how near it is to the large model's."""
    if answer.error is not None:
        return f"(refused: {answer.error})"
    if answer.vector is None:
        return answer.text
    if large is None or large.vector is None:
        return "(a vector)"
    mine, theirs = unit_vectors([answer]), unit_vectors([large])
    return f"(a vector, cosine {(mine * theirs).sum():.3f} to the large model's)"


def _shortened(text: str, most: int = 1200) -> str:
    return text if len(text) <= most else text[:most] + " …"
