"""What steps must hold by themselves and one after another; the manifest and a Job's plan ask alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic.alias_generators import to_camel

from .base import number
from .errors import Issue
from .steps import (
    MADE_FOR,
    STRUCTURE_METHODS,
    WEIGHT_METHODS,
    Distill,
    Export,
    Factorize,
    Heal,
    Linear,
    Prune,
    Quantize,
    Scratch,
    Share,
    Step,
    Trim,
)


def order_issues(steps: Sequence[Step], field: str) -> list[Issue]:
    """Return the steps that undo what an earlier one did, or that cannot work on what it left.

    Args:
        steps: the steps in order.
        field: the list's place in the manifest, such as ``spec.lean.steps``.
    """
    found = [*_unprepared(steps, field), *_untaught(steps, field)]
    for index, step in enumerate(steps):
        for before, earlier in enumerate(steps[:index]):
            found += [
                Issue(f"{field}[{index}].{name}", f"found {what} of steps[{before}]", advice)
                for name, what, advice in _conflicts(earlier, step)
            ]
    return found


def _unprepared(steps: Sequence[Step], field: str) -> Iterable[Issue]:
    """Yield what keeps a quantisation-aware training from the very grid that it trained for."""
    for index, step in enumerate(steps):
        if not isinstance(step, Distill | Heal):
            continue
        scheme, own = step.quantization_aware, f"{field}[{index}]"
        if scheme != "W4A16" and step.group_size is not None:
            found = f"found {step.group_size} without quantizationAware: W4A16"
            yield Issue(f"{own}.groupSize", found, "remove it")
        if scheme is None:
            continue
        if isinstance(step, Heal) and step.method == "LoRA":
            found = f"found {scheme} with method LoRA: not supported yet"
            yield Issue(f"{own}.quantizationAware", found, "write method: Full")
        wanted = Quantize(type="Quantize", scheme=scheme, group_size=step.group_size)
        if index + 1 == len(steps) or not isinstance(after := steps[index + 1], Quantize):
            found = f"found {scheme}, and the next step is no Quantize"
            advice = f"put {{type: Quantize, scheme: {scheme}}} right after it, or remove it"
            yield Issue(f"{own}.quantizationAware", found, advice)
            continue
        for name in ("scheme", "group_size", "algorithm", "targets", "ignore", "ignore_sensitive"):
            was, is_now = getattr(wanted, name), getattr(after, name)
            if was != is_now:
                found = f"found {is_now}, and steps[{index}] was trained for {was}"
                advice = (
                    f"write {was}" if was is not None else f"remove it, or write it in steps[{index}] too"
                )
                yield Issue(f"{field}[{index + 1}].{to_camel(name)}", found, advice)


def _untaught(steps: Sequence[Step], field: str) -> Iterable[Issue]:
    """Yield random weights that nothing teaches."""
    for index, step in enumerate(steps):
        if isinstance(step, Scratch) and not any(isinstance(later, Distill) for later in steps[index:]):
            found = "found Scratch, whose weights are random, and no Distill after it"
            yield Issue(f"{field}[{index}].type", found, "add {type: Distill}")


def zeros_of(step: Step) -> str:
    """Return what to call a step that sets weights to zero; empty for any other."""
    if isinstance(step, Prune) and step.method in WEIGHT_METHODS:
        return f"{step.method} pruning"
    return "Heal with pruneTo" if isinstance(step, Heal) and step.prune_to is not None else ""


def heal_issues(step: Heal, field: str) -> list[Issue]:
    """Return why a Heal step cannot prune as it trains."""
    if step.prune_to is None:
        words = f"found {step.prune_by} without pruneTo"
        return [Issue(f"{field}.pruneBy", words, "remove it")] if step.prune_by is not None else []
    if not 0 < number(step.prune_to) < 1:
        return [Issue(f"{field}.pruneTo", f"found {step.prune_to}", 'write a share such as "0.5"')]
    if step.method == "LoRA":
        found = f"found {step.prune_to} with method LoRA: not supported yet"
        return [Issue(f"{field}.pruneTo", found, "write method: Full")]
    if step.quantization_aware is not None:
        found = f"found {step.prune_to} with quantizationAware: not supported yet"
        return [Issue(f"{field}.pruneTo", found, "write two Heal steps: one prunes, the next one rounds")]
    if step.early_stopping is not None:
        found = "found it with pruneTo: the best weights could be some of before the last are pruned"
        return [Issue(f"{field}.earlyStopping", found, "remove it, or stop early in a Heal after this one")]
    return []


def _conflicts(earlier: Step, step: Step) -> Iterable[tuple[str, str, str]]:
    """Yield (field, what was found, what to write) of a step that stands anywhere after another."""
    if isinstance(earlier, Linear) or isinstance(step, Linear):
        other = earlier if isinstance(step, Linear) else step
        what = f"{step.type}, but Linear uses nothing of other steps, after the {earlier.type}"
        yield "type", what, f"remove {'one of them' if other.type == 'Linear' else other.type}"
    elif isinstance(step, Scratch):
        yield "type", f"Scratch, which begins anew, after the {earlier.type}", "put it first, and once"
    elif isinstance(earlier, Export):
        yield "type", f"{step.type} after the Export", "put Export last: what is exported is only served"
    elif isinstance(earlier, Quantize) and isinstance(step, Export):
        yield (
            "type",
            "Export, which writes float weights or its own 8 bits, after the Quantize",
            "remove the Quantize, and write precision: Int8 here",
        )
    elif isinstance(earlier, Quantize):
        # Integers can be neither trained nor cut here.
        yield (
            "type",
            f"{step.type} after the Quantize",
            "put Quantize last: prune, then distil, then quantise",
        )
    elif isinstance(earlier, Factorize):
        yield from _after_factorize(step)
    elif isinstance(earlier, Share):
        yield from _after_share(step)
    elif isinstance(earlier, Trim) and isinstance(step, Distill):
        yield "type", f"{step.type}, whose teacher has all tokens, after the Trim", "put Distill before it"
    elif isinstance(earlier, Trim) and isinstance(step, Heal) and number(step.label_weight) < 1:
        yield (
            "labelWeight",
            f"{step.label_weight}, of which the rest asks a teacher that has all tokens, after the Trim",
            'write "1", or put Heal before it',
        )
    elif what := zeros_of(earlier):
        if isinstance(step, Distill):
            yield (
                "type",
                f"{step.type}, which would fill the zeros again, after the {what}",
                "write Heal, which keeps them, or put Distill before it",
            )
        if isinstance(step, Share) and step.init == "Mean":
            yield (
                "init",
                f"Mean, which fills zeros of one layer with another's weights, after the {what}",
                "write First, or remove one of them",
            )
        if isinstance(step, Factorize):
            yield (
                "type",
                f"Factorize, whose products have no zeros, after the {what}",
                "remove one of them",
            )
        if isinstance(step, Prune) and step.method in STRUCTURE_METHODS:
            yield (
                "method",
                f"{step.method}, which fills zeros or breaks their pattern, after the {what}",
                f"put {step.method} before it",
            )
        if isinstance(step, Quantize) and step.algorithm == "GPTQ":
            yield (
                "algorithm",
                f"{step.algorithm}, which moves weights away from zero, after the {what}",
                "write RTN",
            )


def _after_share(step: Step) -> Iterable[tuple[str, str, str]]:
    """Yield what cannot work on layers that share their weights."""
    if isinstance(step, Prune | Factorize):
        words = f"{step.type}, which treats every layer by itself, after the Share"
        yield "type", words, f"put {step.type} before it"
    if isinstance(step, Share):
        yield "type", "Share, after the Share", "write one, with more layersPerGroup"
    if isinstance(step, Heal) and step.method == "LoRA":
        yield "method", "LoRA, after the Share: not supported yet", "write Full"
    if isinstance(step, Heal) and step.prune_by == "Movement":
        yield "pruneBy", "Movement, after the Share: not supported yet", "write Magnitude"
    if isinstance(step, Distill | Heal) and step.quantization_aware is not None:
        found = f"{step.quantization_aware}, after the Share: not supported yet"
        yield "quantizationAware", found, "remove it"


def _after_factorize(step: Step) -> Iterable[tuple[str, str, str]]:
    """Yield what cannot work on pairs of thin layers."""
    if isinstance(step, Prune):
        yield (
            "type",
            "Prune, which cuts whole layers and their units, after the Factorize",
            "put Prune before it",
        )
    if isinstance(step, Export):
        yield (
            "type",
            "Export of thin layers, which llama.cpp does not know, after the Factorize",
            "remove one",
        )
    if isinstance(step, Share):
        yield "type", "Share of thin layers, after the Factorize: not supported yet", "remove one of them"
    if isinstance(step, Factorize):
        yield "type", "Factorize of thin layers, after the Factorize", "write one, with a larger ratio"
    if isinstance(step, Quantize):
        yield (
            "type",
            "Quantize of thin layers, which is not supported yet, after the Factorize",
            "remove one of them",
        )


def scratch_issues(step: Scratch, field: str) -> list[Issue]:
    """Return that heads do not divide the width, or heads of keys and values the heads."""
    if step.kv_heads is not None and step.heads % step.kv_heads:
        divisors = [str(count) for count in range(1, step.heads + 1) if step.heads % count == 0]
        found = f"{step.kv_heads} heads of keys and values do not divide {step.heads} heads"
        return [Issue(f"{field}.kvHeads", found, f"write one of {', '.join(divisors)}")]
    if step.hidden_size % step.heads == 0:
        return []
    fits = [str(heads) for heads in range(1, 65) if step.hidden_size % heads == 0]
    found = f"{step.heads} heads do not divide hiddenSize {step.hidden_size}"
    return [Issue(f"{field}.heads", found, f"write one of {', '.join(fits)}")]


def factorize_issues(step: Factorize, field: str) -> list[Issue]:
    """Return what is wrong with how much a Factorize step takes."""
    if (step.ratio is None) == (step.energy is None):
        found = "has both ratio and energy" if step.ratio else "has neither ratio nor energy"
        return [Issue(field, found, 'write one of them, such as ratio: "0.2"')]
    name, value = ("ratio", step.ratio) if step.ratio is not None else ("energy", step.energy)
    if not 0 < number(value or "0") < 1:
        return [Issue(f"{field}.{name}", f"found {value}", "write a share between 0 and 1")]
    return []


def quantize_issues(step: Quantize, field: str) -> list[Issue]:
    """Return that an algorithm is asked for a scheme that it does nothing for."""
    scheme = MADE_FOR.get(step.algorithm, step.scheme)
    if scheme == step.scheme:
        return []
    reason = "it eases activations" if step.algorithm == "SmoothQuant" else "it scales weights of few bits"
    words = f"{step.algorithm} with {step.scheme}, and {reason}"
    return [Issue(f"{field}.algorithm", words, f"write scheme: {scheme}, or algorithm RTN or GPTQ")]


def prune_issues(step: Prune, field: str) -> list[Issue]:
    """Return what is wrong with how much a Prune step takes, and with fields that its method does not have."""
    if step.method in WEIGHT_METHODS:
        return [*_share(step, field), *_block(step, field), *_foreign(step, field, DEPTH_ONLY, "Depth")]
    owners = " or ".join(WEIGHT_METHODS)
    if step.method in STRUCTURE_METHODS:
        foreign = [*_foreign(step, field, DEPTH_ONLY, "Depth"), *_foreign(step, field, ZEROS_ONLY, owners)]
        return [*_units(step, field), *foreign]
    calibrated = " or ".join((*STRUCTURE_METHODS, *WEIGHT_METHODS))
    foreign = [
        *_foreign(step, field, ZEROS_ONLY, owners),
        *_foreign(step, field, CALIBRATED_ONLY, calibrated),
    ]
    return [*_layers(step, field), *foreign]


def _units(step: Prune, field: str) -> Iterable[Issue]:
    if step.ratio is None or not 0 < number(step.ratio) < 1:
        units = {"Neurons": "neurons", "Heads": "key-value groups"}.get(step.method, "channels")
        advice = f'write the share of {units} that goes, such as "0.25"'
        yield Issue(f"{field}.ratio", f"found {step.ratio or 'none'}", advice)


def _layers(step: Prune, field: str) -> Iterable[Issue]:
    if (step.keep_layers is None) == (step.ratio is None):
        found = "has both keepLayers and ratio" if step.ratio else "has neither keepLayers nor ratio"
        yield Issue(field, found, 'write one of them, such as ratio: "0.5"')
    if step.keep_layers is not None and step.protect_first + step.protect_last > step.keep_layers:
        yield Issue(
            f"{field}.keepLayers",
            f"found {step.keep_layers}, less than protectFirst + protectLast = {step.protect_first + step.protect_last}",
            "raise keepLayers or protect fewer layers",
        )


def _share(step: Prune, field: str) -> Iterable[Issue]:
    if step.structure == "2:4" and step.ratio is not None:
        found = f"found {step.ratio} with structure 2:4, which is half"
        yield Issue(f"{field}.ratio", found, "remove one of them")
    if step.structure != "2:4" and (step.ratio is None or not 0 < number(step.ratio) < 1):
        yield Issue(
            f"{field}.ratio",
            f"found {step.ratio or 'none'}",
            'write the share of weights that goes, such as "0.5", or structure: "2:4"',
        )


def _block(step: Prune, field: str) -> Iterable[Issue]:
    """Yield what is wrong with the size of blocks, or with a size where there are none."""
    if step.structure != "Block":
        if step.block_size is not None:
            yield Issue(
                f"{field}.blockSize", f"found {step.block_size} without structure: Block", "remove it"
            )
        return
    if step.method != "Magnitude":
        found = f"found Block with method {step.method}: not supported yet"
        yield Issue(f"{field}.structure", found, "write method: Magnitude")
    if step.block_size is None:
        yield Issue(f"{field}.blockSize", "found none with structure: Block", "write a size, such as 16")


DEPTH_ONLY = ("keep_layers", "selection", "protect_first", "protect_last")
ZEROS_ONLY = ("structure", "block_size", "targets", "ignore")
CALIBRATED_ONLY = ("max_length",)


def _foreign(step: Prune, field: str, names: Iterable[str], owner: str) -> Iterable[Issue]:
    """Yield the fields of another method that do not stand at their default."""
    for name in names:
        if getattr(step, name) != Prune.model_fields[name].default:
            yield Issue(
                f"{field}.{to_camel(name)}",
                f"found {getattr(step, name)!r} with method {step.method}",
                f"remove it: it belongs to {owner}",
            )
