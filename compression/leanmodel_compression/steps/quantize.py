"""Quantise: linear layers in 8 or 4 bits, by llmcompressor, written as compressed-tensors.

W8A8 has one scale per output channel and scales activations per token as they come (what vLLM's integer
kernels take); W8A16 has the same integers and leaves activations alone; W4A16 has one scale per group of input columns. RTN rounds to nearest. GPTQ (arXiv 2210.17323)
goes layer by layer and corrects each column's error in the columns after it; SmoothQuant and AWQ scale channels
first, so that rounding to nearest costs less (see scaling). Every finished layer is kept, and a killed run takes it
from there.

Scales are rounded to bf16 before weights are put on their grid, not after: stored in bf16, a grid and its
scale would otherwise disagree by up to one step of eight bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanmodel_api.errors import Issue
from leanmodel_api.step_rules import quantize_issues
from leanmodel_api.steps import MADE_FOR

from .. import devices, hf, memory
from ..families import HEAD
from ..shapes import Linear, ModelShape, forward_flops, groups_that_fit, targeted
from . import scaling, sensitive, token_table
from .grid import BITS
from .protocol import Outcome, Place, StepError, Task, Work, checked, samples

GROUPS = (128, 64, 32)
DAMPENING = 0.01


class Quantization:
    """Puts weights on a grid."""

    name = "Quantize"
    version = 2
    libraries = ("llmcompressor", "compressed-tensors", "torch", "transformers")
    teaches = False

    def data_set(self, spec: Any) -> tuple[bool, str | None]:
        """All but rounding every layer to nearest look at rows."""
        return spec.sees_rows, spec.data_set

    def max_length(self, spec: Any) -> int | None:
        """Calibration rows are cut to the step's own length."""
        return int(spec.max_length)

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All but the data set's name; what rows alone are for does not count where none are seen."""
        hidden = {"data_set", "type"}
        if not spec.sees_rows:
            hidden |= {"samples", "max_length"}
        return dict(spec.model_dump(mode="json", exclude=hidden, exclude_none=True))

    def issues(self, task: Task) -> list[Issue]:
        """Check that the scheme is built, that layers match, and that the group size divides them."""
        spec, field = task.spec, task.field
        found = quantize_issues(spec, field)
        linears = targeted(task.shape, spec.targets, spec.ignore)
        if not linears:
            found.append(
                Issue(
                    f"{field}.targets",
                    f"{spec.targets} without {spec.ignore} match none of the model's linear layers",
                    "write [Linear], or re:patterns such as re:.*mlp.*",
                )
            )
        elif task.shape.tied and any(linear.name == HEAD for linear in linears):
            words = "lm_head is the token table of this model, too"
            found.append(Issue(f"{field}.ignore", words, "add lm_head to it"))
        elif spec.scheme != "W4A16" and spec.group_size is not None:
            words = f"{spec.group_size} with {spec.scheme}, which has one scale per row"
            found.append(Issue(f"{field}.groupSize", words, "remove it"))
        elif spec.scheme == "W4A16":
            found += group_issues(spec, field, linears)
        if spec.algorithm != "RTN" and (task.rows is None or not task.rows.train):
            words = f"{spec.algorithm} calibrates on rows, there are none"
            found.append(Issue(f"{field}.dataSet", words, "write algorithm: RTN"))
        return [*found, *sensitive.issues(task)]

    def after(self, task: Task) -> ModelShape:
        """The same layers, quantised."""
        from dataclasses import replace

        return replace(task.shape, quantised="compressed-tensors")

    def memory(self, task: Task) -> int:
        """The weights and their integers; calibrating also holds states of all samples, and GPTQ a layer's Hessians."""
        found = memory.loaded_bytes(task.shape) + memory.LLMCOMPRESSOR_BYTES
        if task.spec.algorithm != "RTN":
            lengths = [len(row.ids) for row in samples(task)]
            found += memory.calibration_bytes(task.shape, lengths, hessians=task.spec.algorithm == "GPTQ")
            if task.spec.algorithm == "AWQ":
                found += scaling.search_bytes(task.shape, lengths)
        return checked(task, task.shape, found)

    def disk(self, task: Task) -> int:
        """The artifact, and the finished layers in float32."""
        kept = 0 if task.spec.algorithm == "RTN" else 4 * task.shape.parameters
        return 2 * task.shape.parameters + kept

    def work(self, task: Task) -> Work:
        """Rounding is nearly free; GPTQ factorises one Hessian per layer, AWQ tries many scales on all samples."""
        measuring = sensitive.flops(task)
        start = Work(flops=measuring, bytes=40.0 * task.shape.parameters, seconds=8.0)
        if task.spec.algorithm == "RTN":
            return start
        tokens = sum(len(row.ids) for row in samples(task))
        flops = forward_flops(task.shape, tokens, 0)
        if task.spec.algorithm != "GPTQ":
            tries = scaling.GRID if task.spec.algorithm == "AWQ" else 0
            passes, written = flops * (1 + 2 * tries), start.bytes * (1 + tries)
            return Work(flops=measuring + passes, bytes=written, seconds=start.seconds)
        flops *= 2
        columns = 0
        for linear in targeted(task.shape, task.spec.targets, task.spec.ignore):
            flops += 2.0 * tokens * linear.columns**2 + 3.0 * linear.columns**3
            flops += 2.0 * linear.rows * linear.columns**2
            columns += linear.columns
        # A column is a dozen small operations: their dispatch is what takes the time.
        return Work(flops=measuring + flops, bytes=start.bytes, seconds=start.seconds + columns * 0.0004)

    def run(self, task: Task, place: Place) -> Outcome:
        """Quantise, compress, and write integers with bf16 for all that stayed."""
        from llmcompressor.core import reset_session

        from . import gptq

        quiet()
        place.progress(0, 1, "loading")
        model = hf.load_model(place.source)
        costs: dict[str, float] = {}
        if task.spec.ignore_sensitive is not None:
            task, costs = sensitive.spared(model, task, place, grid_group(task.spec, task.shape))
            place = sensitive.behind(place, task.shape.layers)
        spec = task.spec
        # llmcompressor looks the model's configuration up where it came from.
        model.config._name_or_path = str(place.source)
        arguments = modifier_arguments(spec, task.shape)
        if spec.algorithm == "GPTQ":
            resumed_at = gptq.quantise(model, arguments, samples(task), task, place)
        elif spec.algorithm in MADE_FOR:
            resumed_at = scaling.quantise(model, arguments, samples(task), task, place)
            store_scales(model)
        else:
            resumed_at = None
            round_to_nearest(model, arguments)
        changed = compress_and_save(model, place, task)
        reset_session()
        let_go(model)
        if changed == 0:
            raise StepError(
                Issue(
                    f"{task.field}.targets",
                    "no layer was quantised",
                    "write [Linear], or patterns that match",
                )
            )
        hf.copy_tokenizer(place.source, place.target)
        hf.tidy(place.target)
        place.progress(1, 1, f"{changed} layers")
        return Outcome(changed, describe(spec, task.shape, changed), resumed_at, costs)


def group_issues(spec: Any, field: str, linears: list[Linear]) -> list[Issue]:
    """Return what is wrong with a group size: the layers it does not divide, and the sizes that fit all."""
    fits = groups_that_fit(linears, (1024, 512, 256, 128, 96, 64, 48, 32, 16))
    advice = f"write one of {', '.join(str(size) for size in fits)}" if fits else "write scheme: W8A8"
    if spec.group_size is None:
        if groups_that_fit(linears, GROUPS):
            return []
        return [Issue(f"{field}.groupSize", f"none of {GROUPS} divides every layer's input width", advice)]
    bad: dict[int, list[str]] = {}
    for linear in linears:
        if linear.columns % spec.group_size:
            bad.setdefault(linear.columns, []).append(linear.name)
    if not bad:
        return []
    widths = "; ".join(
        f"{width} of {len(names)} layers such as {names[0]}" for width, names in sorted(bad.items())
    )
    return [
        Issue(f"{field}.groupSize", f"{spec.group_size} does not divide the input width {widths}", advice)
    ]


def group_size(spec: Any, shape: ModelShape) -> int:
    """Return the group size of W4A16: the manifest's, or the largest that divides every layer."""
    if spec.group_size is not None:
        return int(spec.group_size)
    return groups_that_fit(targeted(shape, spec.targets, spec.ignore), GROUPS)[0]


def grid_group(spec: Any, shape: ModelShape) -> int | None:
    """Return how many columns share a scale, None for whole rows."""
    return group_size(spec, shape) if spec.scheme == "W4A16" else None


def describe(spec: Any, shape: ModelShape, changed: int) -> str:
    """Return the settings in short."""
    group = f" group {group_size(spec, shape)}" if spec.scheme == "W4A16" else ""
    spared = (
        f", {spec.ignore_sensitive} sensitive decoder layers left as they are"
        if spec.ignore_sensitive
        else ""
    )
    table = ", token table in 8 bits" if spec.embeddings else ""
    return f"{spec.scheme}{group} {spec.algorithm}, {changed} layers{spared}{table}"


def modifier_arguments(spec: Any, shape: ModelShape) -> dict[str, Any]:
    """Return llmcompressor's words for the step."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    names = [linear.name for linear in targeted(shape, spec.targets, spec.ignore)]
    # Every layer that is meant, by name: what matches is decided in one place, ours.
    everything = {linear.name for linear in shape.linears()}
    whole = set(names) | {"lm_head"} == everything and "lm_head" not in names
    targets = ["Linear"] if whole else names
    if spec.scheme == "W8A16":
        weights = QuantizationArgs(num_bits=8, strategy="channel", symmetric=True)
        scheme = QuantizationScheme(targets=targets, weights=weights)
    elif spec.scheme == "W8A8":
        weights = QuantizationArgs(num_bits=8, strategy="channel", symmetric=True)
        inputs = QuantizationArgs(num_bits=8, strategy="token", symmetric=True, dynamic=True)
        scheme = QuantizationScheme(targets=targets, weights=weights, input_activations=inputs)
    else:
        weights = QuantizationArgs(
            num_bits=4, strategy="group", group_size=group_size(spec, shape), symmetric=True
        )
        scheme = QuantizationScheme(targets=targets, weights=weights)
    return {"config_groups": {"group_0": scheme}, "ignore": ["lm_head"] if whole else []}


def round_to_nearest(model: Any, arguments: dict[str, Any]) -> None:
    """Give every targeted layer its scales; compressing rounds."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    oneshot(model=model, recipe=[QuantizationModifier(**arguments)], pipeline="datafree")
    store_scales(model)


def store_scales(model: Any) -> None:
    """Round every scale as it will be stored, before compressing puts weights on its grid."""
    for module in quantised_modules(model):
        module.weight_scale.data.copy_(hf.as_stored(module.weight_scale.data))


def quantised_modules(model: Any) -> list[Any]:
    """Return the modules that have a scale for their weights."""
    return [module for module in model.modules() if getattr(module, "weight_scale", None) is not None]


def compress_and_save(model: Any, place: Place, task: Task) -> int:
    """Round in float32, then store floats as bf16; return the layers that became integers."""
    import torch
    from compressed_tensors import ModelCompressor

    changed = len(quantised_modules(model))
    if changed == 0:
        return 0
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model, skip_compressed=True)
    devices.brought_home(model)
    model.to(torch.bfloat16)
    model.config._name_or_path = ""
    if task.spec.embeddings is not None:
        token_table.put_on_grid(model, task.shape)
    model.save_pretrained(str(place.target), max_shard_size="1000GB")
    if task.spec.embeddings is not None:
        token_table.enter(place.target, task.shape)
    return changed


def let_go(model: Any) -> None:
    """Free the weights of a model that was saved: what traced it holds it for good, beside what is looked at next."""
    import torch

    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = torch.empty(0, dtype=tensor.dtype)


def quiet() -> None:
    """Keep llmcompressor's log to errors: it warns of what is meant here (no accelerator, no hub)."""
    import sys
    import warnings

    # Importing it sets its own log up, so that has to come first.
    import llmcompressor  # noqa: F401
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    warnings.filterwarnings("ignore", message="Attempting to save a model with offloaded modules")
    warnings.filterwarnings("ignore", message="You passed `quantization_config`")


def stored_bytes(task: Task) -> int:
    """Return the bytes of what comes out: integers and bf16 scales, and bf16 for all that stays."""
    linears = sensitive.left_for(task)
    rest = task.shape.parameters - sum(linear.columns * linear.rows for linear in linears)
    bits = BITS[task.spec.scheme]
    size = 2 * rest
    for linear in linears:
        groups = linear.columns // group_size(task.spec, task.shape) if task.spec.scheme == "W4A16" else 1
        size += linear.rows * (linear.columns * bits // 8 + 2 * groups)
    return size - (token_table.saved_bytes(task.shape) if task.spec.embeddings else 0)
