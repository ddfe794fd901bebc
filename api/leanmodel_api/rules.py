"""Cross-field rules of a manifest: pure functions from the resource to what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .base import number
from .datasets import PARTS, DataSet
from .errors import Issue
from .resource import LeanModel, Spec
from .steps import Distill, Prune, Quantize

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
    """Lean is brought along, made or found: exactly one."""
    if spec.lean is None:
        return
    given = [name for name in ("source", "steps", "search") if getattr(spec.lean, name) is not None]
    if len(given) != 1:
        yield Issue(
            "spec.lean",
            f"has {' and '.join(given) or 'none of source, steps and search'}",
            "write exactly one of source, steps and search",
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
        elif isinstance(step, Prune) and step.selection == "Influence":
            yield field, step.data_set, "measuring influence needs a data set (or write selection: First)"
        elif isinstance(step, Quantize) and step.algorithm == "GPTQ":
            yield field, step.data_set, "GPTQ needs calibration data (or write algorithm: RTN)"
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
        if data.choices and data.answer is None:
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


def prune_amount(spec: Spec) -> Iterable[Issue]:
    """Pruning says how much, once."""
    for index, step in enumerate((spec.lean and spec.lean.steps) or []):
        if isinstance(step, Prune) and (step.keep_layers is None) == (step.ratio is None):
            found = "has both keepLayers and ratio" if step.ratio else "has neither keepLayers nor ratio"
            yield Issue(f"spec.lean.steps[{index}]", found, 'write one of them, such as ratio: "0.5"')
        if (
            isinstance(step, Prune)
            and step.keep_layers is not None
            and step.protect_first + step.protect_last > step.keep_layers
        ):
            yield Issue(
                f"spec.lean.steps[{index}].keepLayers",
                f"found {step.keep_layers}, less than protectFirst + protectLast = {step.protect_first + step.protect_last}",
                "raise keepLayers or protect fewer layers",
            )


def step_order(spec: Spec) -> Iterable[Issue]:
    """Prune, then distil, then quantise: quantised weights can be neither trained nor pruned here."""
    seen: int | None = None
    for index, step in enumerate((spec.lean and spec.lean.steps) or []):
        if seen is not None:
            yield Issue(
                f"spec.lean.steps[{index}].type",
                f"found {step.type} after the Quantize of steps[{seen}]",
                "put Quantize last: prune, then distil, then quantise",
            )
        if isinstance(step, Quantize):
            seen = index


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
            and spec.routing.strategy == "Cascade"
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


def greedy(spec: Spec) -> Iterable[Issue]:
    """A proof needs answers that repeat."""
    if number(spec.evaluation.sampling.temperature) != 0:
        yield Issue(
            "spec.evaluation.sampling.temperature",
            f"found {spec.evaluation.sampling.temperature}",
            'write "0": a sampled large model disagrees with itself, so quality could not be told from luck',
        )


RULES: tuple[Rule, ...] = (
    one_of_large, one_of_lean, data_set_names, data_set_shape, prune_amount, step_order, gate_bounds,
    metric_fits, price_basis, replicas, greedy,
)  # fmt: skip
