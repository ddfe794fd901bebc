"""Cross-field rules of a manifest: pure functions from the resource to what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .base import number
from .budget import budget_issues
from .classification import classification_issues, objective_issues, task_of
from .datasets import PARTS, DataSet
from .embedding import embedding_issues
from .errors import Issue
from .external_rules import external_issues, waiting_issues
from .jobs import device_issues
from .pressure import pressure_issues
from .resource import LeanModel, Spec
from .search_rules import FIELD as SEARCH
from .search_rules import search_issues
from .step_rules import (
    factorize_issues,
    heal_issues,
    order_issues,
    prune_issues,
    quantize_issues,
    scratch_issues,
)
from .steps import STRUCTURE_METHODS, Distill, Factorize, Heal, Linear, Prune, Quantize, Scratch, Trim
from .teacher_rules import teacher_issues

Rule = Callable[[Spec], Iterable[Issue]]


def cross_field_issues(model: LeanModel) -> list[Issue]:
    """Return what is wrong across fields, in the order of the manifest."""
    return [issue for rule in RULES for issue in rule(model.spec)]


def one_of_large(spec: Spec) -> Iterable[Issue]:
    """Large has weights of its own or a provider, never both or none."""
    if (spec.large.source is None) == (spec.large.external is None):
        found = "has both source and external" if spec.large.source else "has neither source nor external"
        yield Issue("spec.large", found, "write exactly one of them")
    if spec.large.external is not None and spec.large.finetune is not None:
        yield Issue(
            "spec.large.finetune",
            "an external model cannot be fine-tuned here",
            "remove finetune, or give large.source",
        )


def one_of_lean(spec: Spec) -> Iterable[Issue]:
    """Lean is brought along, made or found: exactly one, but what is brought along may be worked on."""
    if spec.lean is None:
        return
    given = [name for name in ("source", "steps", "search") if getattr(spec.lean, name) is not None]
    if len(given) != 1 and given != ["source", "steps"]:
        yield Issue(
            "spec.lean",
            f"has {' and '.join(given) or 'none of source, steps and search'}",
            "write one of source, steps and search, or source and steps",
        )


def data_set_names(spec: Spec) -> Iterable[Issue]:
    """Names are unique, and every reference finds one."""
    names = [data.name for data in spec.data_sets]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Issue(
            "spec.dataSets",
            f"the name {name!r} stands {names.count(name)} times",
            "give each data set a name of its own",
        )
    for field, wanted, why in _references(spec):
        if wanted is None and len(names) != 1:
            found = "there is no data set" if not names else f"there are {len(names)} data sets"
            yield Issue(
                field,
                f"{why}, and {found}",
                "add one to spec.dataSets" if not names else f"write which: one of {', '.join(names)}",
            )
        elif wanted is not None and wanted not in names:
            yield Issue(
                field,
                f"found {wanted!r}, which is not in spec.dataSets",
                f"write one of {', '.join(names) or '(none given)'}",
            )


def _references(spec: Spec) -> Iterable[tuple[str, str | None, str]]:
    """Yield (field, name or None, why it is needed) of each use of a data set."""
    if spec.large.finetune:
        yield "spec.large.finetune.dataSet", spec.large.finetune.data_set, "fine-tuning needs a data set"
    for index, step in enumerate((spec.lean and spec.lean.steps) or []):
        field = f"spec.lean.steps[{index}].dataSet"
        if isinstance(step, Distill):
            yield field, step.data_set, "distillation needs a data set"
        elif isinstance(step, Prune) and step.method in STRUCTURE_METHODS:
            yield field, step.data_set, f"choosing {step.method.lower()} needs a data set"
        elif isinstance(step, Prune) and step.method in ("Wanda", "SparseGPT"):
            yield field, step.data_set, f"{step.method} needs calibration data (or write method: Magnitude)"
        elif isinstance(step, Prune) and step.method == "Depth" and step.selection == "Influence":
            yield field, step.data_set, "measuring influence needs a data set (or write selection: First)"
        elif isinstance(step, Factorize):
            yield field, step.data_set, "factorising needs calibration data"
        elif isinstance(step, Heal):
            yield field, step.data_set, "healing needs a data set"
        elif isinstance(step, Linear):
            yield field, step.data_set, "a linear model needs a data set"
        elif isinstance(step, Trim):
            yield field, step.data_set, "trimming needs the domain's texts"
        elif isinstance(step, Quantize) and step.algorithm != "RTN":
            yield field, step.data_set, f"{step.algorithm} needs calibration data (or write algorithm: RTN)"
        elif isinstance(step, Quantize) and step.ignore_sensitive is not None:
            yield field, step.data_set, "ignoreSensitive is measured on a data set"
    if spec.lean is not None and spec.lean.search is not None:
        search = spec.lean.search
        yield f"{SEARCH}.promise.dataSet", search.promise.data_set, "a search measures on a data set"
        yield f"{SEARCH}.training.dataSet", search.training.data_set, "a search trains its candidates"
    if spec.lean is not None:
        yield "spec.evaluation.dataSet", spec.evaluation.data_set, "proving the lean model needs a data set"


def data_set_shape(spec: Spec) -> Iterable[Issue]:
    """A prompt is a chat or a text; parts fit into one; choices are distinct; templates name columns."""
    for index, data in enumerate(spec.data_sets):
        field = f"spec.dataSets[{index}]"
        prompt = data.prompt
        if (prompt.user is None) == (prompt.text is None):
            yield Issue(
                f"{field}.prompt",
                "has both user and text" if prompt.user else "has neither user nor text",
                "write user for a chat, or text for a raw prompt",
            )
        if prompt.text is not None and prompt.system is not None:
            yield Issue(
                f"{field}.prompt.system",
                "a raw prompt has no system message",
                "put its words into prompt.text, or use prompt.user",
            )
        template = prompt.user or prompt.text or ""
        if not re.search(r"{[A-Za-z_][A-Za-z0-9_]*}", template):
            yield Issue(
                f"{field}.prompt",
                f"found {template!r}, in which no column stands",
                "write the column in braces, such as {msg}",
            )
        if data.choices and len(set(data.choices)) != len(data.choices):
            yield Issue(f"{field}.choices", "the same choice stands twice", "write each once")
        # What a teacher labels needs no labels of its own; the proof does.
        unlabelled = spec.teacher is not None and data is not evaluation_data(spec)
        if data.choices and data.answer is None and not unlabelled:
            yield Issue(
                f"{field}.answer",
                "choices are given but no answer",
                "write the answer's column, such as {label}",
            )
        if data.positive is not None and data.positive not in (data.choices or []):
            yield Issue(
                f"{field}.positive",
                f"found {data.positive!r}, which is not among choices",
                f"write one of {data.choices or 'spec.dataSets[].choices'}",
            )
        yield from _parts(field, data)


def _parts(field: str, data: DataSet) -> Iterable[Issue]:
    total = sum(number(getattr(data.split, part)) for part in PARTS)
    if total > 1 + 1e-9:
        yield Issue(
            f"{field}.split", f"the parts add up to {total:g}", "lower them so that they add up to at most 1"
        )


def amounts(spec: Spec) -> Iterable[Issue]:
    """A step that makes a model smaller says how much, once, and in the words of its method."""
    for index, step in enumerate((spec.lean and spec.lean.steps) or []):
        if isinstance(step, Prune):
            yield from prune_issues(step, f"spec.lean.steps[{index}]")
        if isinstance(step, Factorize):
            yield from factorize_issues(step, f"spec.lean.steps[{index}]")
        if isinstance(step, Quantize):
            yield from quantize_issues(step, f"spec.lean.steps[{index}]")
        if isinstance(step, Heal):
            yield from heal_issues(step, f"spec.lean.steps[{index}]")
        if isinstance(step, Distill) and task_of(spec) is None:
            yield from objective_issues(step, f"spec.lean.steps[{index}]")
        if isinstance(step, Scratch):
            yield from scratch_issues(step, f"spec.lean.steps[{index}]")


def step_order(spec: Spec) -> Iterable[Issue]:
    """Steps stand in an order in which each can work and none undoes another."""
    return order_issues((spec.lean and spec.lean.steps) or [], "spec.lean.steps")


def gate_bounds(spec: Spec) -> Iterable[Issue]:
    """A gate has one bound, and what it measures is measured."""
    for index, gate in enumerate(spec.evaluation.gates):
        field = f"spec.evaluation.gates[{index}]"
        if (gate.min is None) == (gate.max is None):
            yield Issue(
                field, "has both min and max" if gate.min else "has neither min nor max", "write one of them"
            )
        if gate.metric == "Saving" and spec.pricing is None:
            yield Issue(
                field, "a gate on Saving needs prices", "write spec.pricing.large and spec.pricing.lean"
            )
        if (
            gate.metric == "LeanQualityRetained"
            and gate.min
            and number(gate.min) >= number(spec.routing.promise.retain)
            and spec.routing.strategy != "Fixed"
        ):
            yield Issue(f"{field}.min", f"found {gate.min}, not below the promise spec.routing.promise.retain {spec.routing.promise.retain}",
                        "lower it: such a lean model keeps the promise alone and nothing is ever escalated; the gate is a floor, the promise is the pair's")  # fmt: skip
    if spec.evaluation.gates and spec.lean is None:
        yield Issue(
            "spec.evaluation.gates",
            "there is no lean model to hold against them",
            "add spec.lean, or remove the gates",
        )


def metric_fits(spec: Spec) -> Iterable[Issue]:
    """The metric needs what the data set has."""
    data = evaluation_data(spec)
    metric = spec.evaluation.metric
    if data is None or metric is None:
        return
    if metric in ("BalancedAccuracy", "ChoiceAccuracy", "F1") and not data.choices:
        yield Issue(
            "spec.evaluation.metric",
            f"found {metric}, but data set {data.name!r} has no choices",
            "write spec.dataSets[].choices, or another metric",
        )
    if metric in ("ExactMatch", "TokenF1", "RougeL") and data.answer is None:
        yield Issue(
            "spec.evaluation.metric",
            f"found {metric}, but data set {data.name!r} has no answer",
            "write spec.dataSets[].answer, or metric: Agreement",
        )


def evaluation_data(spec: Spec) -> DataSet | None:
    """Return the data set of the proof, or None when it cannot be told."""
    name = spec.evaluation.data_set
    if name is None:
        return spec.data_sets[0] if len(spec.data_sets) == 1 else None
    return next((data for data in spec.data_sets if data.name == name), None)


def price_basis(spec: Spec) -> Iterable[Issue]:
    """Each price has one basis, and both models share it."""
    if spec.pricing is None:
        if spec.routing.usd_per_second is not None:
            found = f"found {spec.routing.usd_per_second}, but spec.pricing is missing: there is nothing to weigh it against"
            yield Issue("spec.routing.usdPerSecond", found, "write spec.pricing, or remove it")
        return
    bases = {}
    for name in ("large", "lean"):
        price = getattr(spec.pricing, name)
        tokens = (price.input_usd_per_million_tokens, price.output_usd_per_million_tokens)
        if (price.usd_per_hour is None) == (tokens == (None, None)):
            yield Issue(
                f"spec.pricing.{name}",
                "has both an hourly and a token price" if price.usd_per_hour else "has no price",
                "write usdPerHour, or both token prices",
            )
        elif price.usd_per_hour is None and None in tokens:
            yield Issue(
                f"spec.pricing.{name}",
                "has one token price of two",
                "write inputUSDPerMillionTokens and outputUSDPerMillionTokens",
            )
        bases[name] = "hourly" if price.usd_per_hour is not None else "token"
    if len(set(bases.values())) == 2:
        yield Issue(
            "spec.pricing",
            "the large and the lean model are priced on different bases",
            "price both per hour, or both per token, so that a saving means something",
        )


def replicas(spec: Spec) -> Iterable[Issue]:
    """Bounds of replicas are in order."""
    for name in ("large", "lean"):
        serving = getattr(spec.serving, name)
        if serving.min_replicas > serving.max_replicas:
            yield Issue(
                f"spec.serving.{name}.maxReplicas",
                f"found {serving.max_replicas}, less than minReplicas {serving.min_replicas}",
                "raise it",
            )


def monitoring_level(spec: Spec) -> Iterable[Issue]:
    """A level of 0 can never alarm, and one above a half says nothing."""
    monitoring = spec.routing.monitoring
    if monitoring is not None and not 0 < number(monitoring.false_alarms) <= 0.5:
        yield Issue(
            "spec.routing.monitoring.falseAlarms",
            f"found {monitoring.false_alarms}",
            "write above 0 and at most 0.5, such as 0.05",
        )


def greedy(spec: Spec) -> Iterable[Issue]:
    """A proof needs answers that repeat."""
    if number(spec.evaluation.sampling.temperature) != 0:
        yield Issue(
            "spec.evaluation.sampling.temperature",
            f"found {spec.evaluation.sampling.temperature}",
            'write "0": a sampled large model disagrees with itself, so quality could not be told from luck',
        )


RULES: tuple[Rule, ...] = (
    one_of_large, one_of_lean, data_set_names, data_set_shape, amounts, step_order, gate_bounds,
    metric_fits, price_basis, replicas, monitoring_level, greedy, budget_issues, classification_issues, embedding_issues,
    external_issues, waiting_issues, pressure_issues, teacher_issues, search_issues,
    device_issues,
)  # fmt: skip
