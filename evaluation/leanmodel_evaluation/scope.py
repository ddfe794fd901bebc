"""What the certificate holds for: the shape of the prompts, the sampling, the engine, the data, the models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from leanmodel_api.base import number
from leanmodel_api.classification import EMBEDDING
from leanmodel_api.datasets import Prompt
from leanmodel_api.parts import Example
from leanmodel_api.plan import ProvePlan
from leanmodel_api.policy import Aggregate, PromptScope, Scope
from leanmodel_store import templates

Endpoint = Literal["classify", "embeddings"]


def scope_of(plan: ProvePlan, metric: str, data_digest: str, examples: Sequence[Example]) -> Scope:
    """Return the scope of a proof.

    Args:
        metric: the metric that is promised.
        examples: what was asked; the prompts' fixed ends are those that all of them really have.
    """
    prompt = plan.data_set.prompt
    classifies = plan.task is not None
    own: Endpoint = "embeddings" if plan.task == EMBEDDING else "classify"
    aggregate: Aggregate = "balanced" if metric == "BalancedAccuracy" else "mean"
    return Scope(
        metric=metric,
        aggregate=aggregate,
        decision=Scope.reading(plan.routing.hold_back),
        endpoint=own if classifies else "completions" if prompt.text is not None else "chat",
        # A list of texts has no beginning and end of one prompt; each has its own vector.
        prompt=None if plan.task == EMBEDDING else prompt_scope(prompt, examples),
        prompt_template_digest=_digest(prompt.model_dump_json()),
        data_digest=data_digest,
        temperature=None if classifies else number(plan.evaluation.sampling.temperature),
        max_tokens=None if classifies else plan.evaluation.sampling.max_tokens,
        n=None if classifies else 1,
        engine=plan.engine,
        concurrency=plan.evaluation.concurrency,
        lean_revision=plan.lean.artifact,
        large_revision=plan.large.artifact,
    )


def prompt_scope(prompt: Prompt, examples: Sequence[Example]) -> PromptScope:
    """Return the literal ends of the template, cut down to what every example really begins and ends with."""
    if prompt.text is not None:
        ends = _ends(prompt.text)
        texts = [example.text or "" for example in examples]
        return PromptScope(roles=(), prefixes=(_begin(ends[0], texts),), suffixes=(_end(ends[1], texts),))
    ends = _ends(prompt.user or "")
    users = [(example.messages or [])[-1].content for example in examples if example.messages]
    prefix, suffix = _begin(ends[0], users), _end(ends[1], users)
    if prompt.system is None:
        return PromptScope(roles=("user",), prefixes=(prefix,), suffixes=(suffix,))
    systems = [(example.messages or [])[0].content for example in examples if example.messages]
    system = _begin(prompt.system, systems)
    return PromptScope(
        roles=("system", "user"), prefixes=(system, prefix), suffixes=(_end(prompt.system, systems), suffix)
    )


def _ends(template: str) -> tuple[str, str]:
    """Return the literal text before the first and after the last column, doubled braces made single."""
    pieces = templates.parse(template, "spec.dataSets[].prompt").pieces
    columns = [index for index, (_, column) in enumerate(pieces) if column is not None]
    if not columns:
        return template, template
    first = "".join(literal for literal, _ in pieces[: columns[0] + 1])
    return first, "".join(literal for literal, _ in pieces[columns[-1] + 1 :])


def _begin(literal: str, texts: Sequence[str]) -> str:
    while literal and not all(text.startswith(literal) for text in texts):
        literal = literal[:-1]
    return literal


def _end(literal: str, texts: Sequence[str]) -> str:
    while literal and not all(text.endswith(literal) for text in texts):
        literal = literal[1:]
    return literal


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
