"""What stands beside the figures: where they were measured, on what, and what a reader must know."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from leanmodel_api.base import number
from leanmodel_api.plan import ProvePlan
from leanmodel_api.report import Estimate
from leanmodel_store import datasets

from .asked import Asked
from .baselines import Baseline, TextModel
from .records import PartAnswers


def environment(
    plan: ProvePlan, metric: str, data: datasets.Parts, parts: dict[str, PartAnswers], baselines: Sequence[Baseline],
    asked: Asked, look: int, differing: int, over: Estimate | None, notes: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Return what the figures hold for and what to know of them, as the report carries it."""
    text = next((item for item in baselines if isinstance(item, TextModel)), None)
    found: dict[str, Any] = {
        "engine": plan.engine,
        "machine": f"{platform.machine()}, {platform.system()}",
        "concurrency": plan.evaluation.concurrency,
        "speedBlocks": asked.speed.blocks,
        "dataSet": plan.data_set.name,
        "dataDigest": data.digest,
        "duplicatesRemoved": data.duplicates_removed,
        "labelCounts": data.label_counts,
        "looks": look,
        "different": differing,
        "warnings": warnings(plan, metric, parts, look, over, notes),
    }
    if text is not None:
        found["baseline"] = (
            f"TF-IDF of words and pairs, logistic regression, {text.settings} (chosen on validation)"
        )
    return found


def warnings(
    plan: ProvePlan,
    metric: str,
    parts: dict[str, PartAnswers],
    look: int,
    over: Estimate | None,
    notes: Sequence[str],
) -> list[str]:
    """Return what a reader must know, in words."""
    found = list(notes)
    if over is not None and over.value <= 0:
        found.append(
            f"The lean model is not better than TF-IDF with logistic regression (its {metric} is {-over.value:.3f} "
            f"lower, 95% interval of the difference {over.low:.3f} to {over.high:.3f}): that would be far cheaper to serve."
        )
    if look > 1:
        chance = number(plan.routing.promise.risk) * float(np.sum(1 / np.arange(1, look + 1)))
        found.append(
            f"This is proof {look} on the same certify part. Its risk was divided by {look}; that any of the {look} is "
            f"wrong has a chance of at most {min(1.0, chance):.2g}. Take a fresh part: change spec.dataSets[].split.seed "
            "or add data."
        )
    if metric == "F1":
        found.append("The promise is certified on BalancedAccuracy: F1 is no mean over requests.")
    for role in ("large", "lean"):
        answers = [
            answer for part in parts.values() for answer in (part.large if role == "large" else part.lean)
        ]
        refused = sum(answer.error is not None for answer in answers)
        if refused:
            found.append(
                f"The {role} model's engine refused {refused} of {len(answers)} requests; they count as wrong."
            )
    return found
