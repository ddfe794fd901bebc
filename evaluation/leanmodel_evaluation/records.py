"""Records for calibration: what both models answered to each example of a part, and how good it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from leanmodel_api.parts import Example
from leanmodel_api.policy import Record

from .answers import Answer
from .intervals import Floats
from .metrics import Judged


@dataclass(frozen=True)
class PartAnswers:
    """One part of the data with both models' answers, judged; all sequences have one entry per example."""

    name: str
    examples: Sequence[Example]
    large: Sequence[Answer]
    lean: Sequence[Answer]
    judged_large: Judged
    judged_lean: Judged
    large_costs: Floats | None
    lean_costs: Floats | None

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.examples)


def records(part: PartAnswers, metric: str, balanced: bool) -> list[Record]:
    """Return one calibration record per example.

    Args:
        metric: whose qualities the promise is about.
        balanced: whether the wanted choice goes along as the record's stratum.
    """
    return [_record(part, index, metric, balanced) for index in range(len(part))]


def _record(part: PartAnswers, index: int, metric: str, balanced: bool) -> Record:
    example, lean, large = part.examples[index], part.lean[index], part.large[index]
    refused = lean.error is not None
    return Record(
        prompt=_prompt(example),
        lean_quality=float(part.judged_lean.qualities[metric][index]),
        large_quality=float(part.judged_large.qualities[metric][index]),
        lean_answer=lean.text,
        large_answer=large.text,
        lean_logprobs=None
        if refused or not lean.logprobs
        else tuple(min(value, 0.0) for value in lean.logprobs),
        lean_top_logprobs=None
        if refused or not lean.top_logprobs
        else tuple(tuple(min(value, 0.0) for value in top) for top in lean.top_logprobs),
        lean_finish_reason=lean.finish_reason or None,
        lean_cost=None if part.lean_costs is None else float(part.lean_costs[index]),
        large_cost=None if part.large_costs is None else float(part.large_costs[index]),
        lean_latency=lean.seconds,
        large_latency=large.seconds,
        stratum=example.answer if balanced else None,
        group=example.group,
    )


def _prompt(example: Example) -> str | list[dict[str, JsonValue]]:
    if example.text is not None:
        return example.text
    return [{"role": message.role, "content": message.content} for message in example.messages or []]
