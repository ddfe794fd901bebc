"""The part of the Job that talks to the endpoint: all answers, scores and speeds, resumed where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from leanmodel_api.errors import InputError, one
from leanmodel_api.parts import Example
from leanmodel_api.plan import ProvePlan, RevisionRef

from .answers import Answer, AnswerBook, Score
from .ask import ask_all, score_all
from .client import Asker
from .progress import Phase, Progress
from .speed import Comparison, compare_speed, measure, memory_of, speed_prompts


@dataclass(frozen=True)
class Asked:
    """What both models answered to the examples, in their order, and how fast they were.

    Attributes:
        large_scores, lean_scores: log-probabilities of the wanted answers; None when they were not needed.
    """

    large: list[Answer]
    lean: list[Answer]
    large_scores: list[Score] | None
    lean_scores: list[Score] | None
    speed: Comparison


def phases(plan: ProvePlan, examples: int, scored: bool) -> list[Phase]:
    """Return the phases of a proof, in order."""
    asks = [
        "ask-large",
        *(["score-large"] if scored else []),
        "ask-lean",
        *(["score-lean"] if scored else []),
    ]
    # Until the lean model has been measured it is taken to be faster by its size.
    lean = max(0.1, min(1.0, plan.lean.bytes / max(1, plan.large.bytes)))
    like = {"score-large": "ask-large", "ask-lean": "ask-large", "score-lean": "ask-lean"}
    listed = [
        Phase(name, examples, like=like.get(name), factor=lean if name == "ask-lean" else 1.0)
        for name in asks
    ]
    speed = 2 * plan.evaluation.throughput_requests
    listed.append(Phase("speed", speed, like="ask-large", factor=(1 + lean) / 2))
    return [*listed, Phase("calibrate", 1, unit_seconds=10), Phase("report", 1, unit_seconds=5)]


def book_of(plan: ProvePlan, revision: RevisionRef, folder: Path) -> AnswerBook:
    """Return the book of a revision's answers: its weights, engine, sampling and load name it, not its name."""
    identity = {
        "model": plan.name, "artifact": revision.artifact, "engine": plan.engine,
        "concurrency": str(plan.evaluation.concurrency),
    }  # fmt: skip
    return AnswerBook(folder, identity)


async def ask_both(
    plan: ProvePlan, endpoint: str, token: str, folder: Path, examples: Sequence[Example],
    unasked: Sequence[Example], scored: bool, progress: Progress,
) -> Asked:  # fmt: skip
    """Ask both revisions everything, then measure their speed in turn.

    Args:
        folder: where books of answers are kept.
        examples: what quality is judged on.
        unasked: prompts of other parts, for the speed.
        scored: whether the wanted answers' log-probabilities are asked for too.
    """
    settings = plan.evaluation
    answers: dict[str, list[Answer]] = {}
    scores: dict[str, list[Score] | None] = {}
    async with Asker(endpoint, plan.name, token, settings.concurrency, task=plan.task) as asker:
        for role, revision in (("large", plan.large), ("lean", plan.lean)):
            with ExitStack() as stack:
                book = stack.enter_context(book_of(plan, revision, folder).writing())
                report = progress.start(f"ask-{role}", len(examples), f"{revision.name} answers")
                answers[role] = await ask_all(
                    asker,
                    book,
                    revision.name,
                    examples,
                    settings.sampling.max_tokens,
                    settings.concurrency,
                    report,
                )
                progress.finish(f"ask-{role}")
                _answered(revision, answers[role])
                scores[role] = None
                if scored:
                    report = progress.start(
                        f"score-{role}", len(examples), f"{revision.name} scores wanted answers"
                    )
                    scores[role] = await score_all(
                        asker, book, revision.name, examples, answers[role], settings.concurrency, report
                    )
                    progress.finish(f"score-{role}")
        compared = await _speed(asker, plan, examples, unasked, progress)
    return Asked(answers["large"], answers["lean"], scores["large"], scores["lean"], compared)


async def _speed(
    asker: Asker, plan: ProvePlan, examples: Sequence[Example], unasked: Sequence[Example], progress: Progress
) -> Comparison:
    settings = plan.evaluation
    count = settings.throughput_requests
    report = progress.start("speed", 2 * count, "both models in turn")
    prompts = speed_prompts(
        unasked, examples, settings.concurrency + count, f"{plan.lean.artifact} {plan.seed}"
    )
    blocks = await measure(
        asker,
        plan.large.name,
        plan.lean.name,
        prompts,
        settings.sampling.max_tokens,
        settings.concurrency,
        count,
        report,
    )
    memory = [memory_of(await asker.metrics_text(item.name)) for item in (plan.large, plan.lean)]
    progress.finish("speed")
    return compare_speed(*blocks, memory=(memory[0], memory[1]), seed=plan.seed)


def _answered(revision: RevisionRef, answers: Sequence[Answer]) -> None:
    """Fail when a model answered nothing at all: the request itself is at fault, not the prompts."""
    refused = [answer for answer in answers if answer.error is not None]
    if answers and len(refused) == len(answers):
        raise one(
            InputError, "spec.dataSets[].prompt", f"{revision.name} refused every request ({refused[0].error})",
            "see whether prompt and evaluation.sampling.maxTokens fit into serving.*.maxModelLength",
        )  # fmt: skip
