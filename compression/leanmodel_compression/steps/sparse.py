"""Prune weights: single weights become zero, anywhere or two of every four columns. No shape changes.

Magnitude takes the smallest of each layer. Wanda (arXiv 2306.11695) weighs each weight by how large its input is
on calibration rows, and compares within an output row. SparseGPT (arXiv 2301.00774) also moves what stays, so that
the layer's output changes least. The two are llmcompressor's, made resumable (see calibrate).

The zeros are stored like any other number, and no engine here computes less for them: the artifact is as large and
as fast as before. What it buys is the pattern, for a packer or an engine that uses it, and nothing else is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.errors import Issue
from leanmodel_api.step_rules import prune_issues
from leanmodel_api.steps import WEIGHT_METHODS

from .. import devices, families, hf, memory
from ..shapes import Linear, ModelShape, forward_flops, targeted
from . import masks
from .protocol import Outcome, Place, StepError, Task, Work, checked, samples

MAX_LENGTH = 512


class WeightPruning:
    """Sets weights to zero."""

    name = "Prune"
    version = 1
    libraries = ("llmcompressor", "torch", "transformers")
    teaches = False
    methods = WEIGHT_METHODS

    def data_set(self, spec: Any) -> tuple[bool, str | None]:
        """Magnitude looks at the weights alone."""
        return spec.method != "Magnitude", spec.data_set

    def max_length(self, spec: Any) -> int | None:
        """Calibration rows are cut to the step's own length."""
        return int(spec.max_length or MAX_LENGTH)

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """What the zeros depend on, with defaults written out; rows count by their content."""
        found: dict[str, Any] = {
            "method": spec.method,
            "share": share(spec),
            "structure": spec.structure or "Unstructured",
            **({"block_size": spec.block_size} if spec.structure == "Block" else {}),
            "targets": wanted(spec)[0],
            "ignore": wanted(spec)[1],
        }
        if spec.method != "Magnitude":
            found |= {"samples": spec.samples, "max_length": self.max_length(spec)}
        return found

    def issues(self, task: Task) -> list[Issue]:
        """Check the share, that layers match, that the pattern fits their widths, and that there are rows."""
        spec, field = task.spec, task.field
        found = prune_issues(spec, field)
        linears = targeted(task.shape, *wanted(spec))
        if not linears:
            targets, ignore = wanted(spec)
            found.append(
                Issue(
                    f"{field}.targets",
                    f"{targets} without {ignore} match none of the model's linear layers",
                    "write [Linear], or re:patterns such as re:.*mlp.*",
                )
            )
        elif not found:
            found += fit_issues(task, linears)
        if spec.method != "Magnitude" and (task.rows is None or not task.rows.train):
            found.append(
                Issue(
                    f"{field}.dataSet",
                    f"{spec.method} calibrates on rows, there are none",
                    "write method: Magnitude",
                )
            )
        return found

    def after(self, task: Task) -> ModelShape:
        """The model keeps its shape."""
        return task.shape

    def memory(self, task: Task) -> int:
        """Magnitude holds the stored weights and one layer's scores; the others calibrate."""
        if task.spec.method == "Magnitude":
            meant = targeted(task.shape, *wanted(task.spec))
            largest = max((linear.columns * linear.rows for linear in meant), default=0)
            return checked(task, task.shape, memory.loaded_bytes(task.shape) + 16 * largest)
        lengths = [len(row.ids) for row in samples(task)]
        calibrating = memory.calibration_bytes(task.shape, lengths, task.spec.method == "SparseGPT")
        need = memory.loaded_bytes(task.shape) + memory.LLMCOMPRESSOR_BYTES + calibrating
        return checked(task, task.shape, need)

    def disk(self, task: Task) -> int:
        """The artifact, and the finished layers in float32."""
        kept = 0 if task.spec.method == "Magnitude" else 4 * task.shape.parameters
        return 2 * task.shape.parameters + kept

    def work(self, task: Task) -> Work:
        """Two passes over the samples; SparseGPT also factorises a matrix per layer and goes through its columns."""
        start = Work(bytes=30.0 * task.shape.parameters, seconds=2.0)
        if task.spec.method == "Magnitude":
            return start
        tokens = sum(len(row.ids) for row in samples(task))
        flops, columns = 2 * forward_flops(task.shape, tokens, 0), 0
        if task.spec.method == "SparseGPT":
            for linear in targeted(task.shape, *wanted(task.spec)):
                flops += 2.0 * tokens * linear.columns**2 + 3.0 * linear.columns**3
                flops += 2.0 * linear.rows * linear.columns**2
                columns += linear.columns
        return Work(flops=flops, bytes=start.bytes, seconds=8.0 + columns * 0.0004)

    def run(self, task: Task, place: Place) -> Outcome:
        """Find the zeros, write the changed tensors among the others, and hold the pattern against them."""
        from . import calibrate

        linears = targeted(task.shape, *wanted(task.spec))
        resumed_at = None
        if task.spec.method == "Magnitude":
            tensors = read(place)
            for index, linear in enumerate(linears):
                weight = tensors[f"{linear.name}.weight"]
                weight[by_magnitude(weight.to(devices.here()), task.spec).cpu()] = 0
                place.progress(index + 1, len(linears), f"{index + 1}/{len(linears)} layers")
        else:
            changed, resumed_at = calibrate.prune(linears, share(task.spec), samples(task), task, place)
            tensors = {**read(place), **changed}
        zeros = count_zeros(tensors, linears, task)
        write(tensors, place)
        part = zeros / sum(linear.columns * linear.rows for linear in linears)
        return Outcome(len(linears), describe(task.spec, len(linears), part), resumed_at, {"zeroShare": part})


def wanted(spec: Any) -> tuple[list[str], list[str]]:
    """Return the step's targets and exceptions."""
    return spec.targets or ["Linear"], ["lm_head"] if spec.ignore is None else spec.ignore


def share(spec: Any) -> float:
    """Return the share of each layer's weights that goes."""
    return masks.ZEROS_IN_GROUP / masks.GROUP if spec.structure == "2:4" else number(spec.ratio)


def fit_issues(task: Task, linears: list[Linear]) -> list[Issue]:
    """Return the layers that the pattern does not fit, and the table that must not be cut by the way."""
    spec, field, found = task.spec, task.field, []
    odd = [linear for linear in linears if linear.columns % masks.GROUP]
    if spec.structure == "2:4" and odd:
        found.append(
            Issue(
                f"{field}.structure",
                f"2:4, and {len(odd)} layers such as {odd[0].name} have {odd[0].columns} columns",
                "write structure: Unstructured with a ratio, or name them in ignore",
            )
        )
    if spec.structure == "Block":
        found += block_issues(spec, field, linears)
    least = min(linear.columns for linear in linears)
    if spec.structure not in ("2:4", "Block") and int(share(spec) * least) < 1:
        found.append(
            Issue(f"{field}.ratio", f"{spec.ratio} takes none of {least} columns", "write a larger one")
        )
    if task.shape.tied and any(linear.name == "lm_head" for linear in linears):
        found.append(
            Issue(f"{field}.ignore", "lm_head is the token table of this model, too", "add lm_head to it")
        )
    return found


def block_issues(spec: Any, field: str, linears: list[Linear]) -> list[Issue]:
    """Return the layers that blocks do not fill, and that the share takes none of their blocks."""
    size = spec.block_size
    odd = [linear for linear in linears if linear.columns % size or linear.rows % size]
    if odd:
        widths = f"{odd[0].rows} rows and {odd[0].columns} columns"
        fits = [
            other
            for other in (64, 32, 16, 8, 4, 2)
            if all(linear.columns % other == 0 == linear.rows % other for linear in linears)
        ]
        advice = (
            f"write one of {', '.join(map(str, fits))}"
            if fits
            else "write structure: Unstructured with a ratio"
        )
        words = f"{size} does not divide {len(odd)} layers such as {odd[0].name} of {widths}"
        return [Issue(f"{field}.blockSize", words, advice)]
    least = min(linear.columns * linear.rows for linear in linears) // size**2
    if int(share(spec) * least) < 1:
        words = f"{spec.ratio} takes none of {least} blocks"
        return [Issue(f"{field}.ratio", words, "write a larger one, or a smaller blockSize")]
    return []


def by_magnitude(weight: Any, spec: Any) -> Any:
    """Return the mask of the weights of a layer (rows × columns) that go."""
    scores = weight.float().abs()
    if spec.structure == "2:4":
        return masks.two_of_four(scores)
    if spec.structure == "Block":
        return masks.blocks(scores, share(spec), spec.block_size)
    return masks.smallest(scores, int(share(spec) * scores.numel()))


def count_zeros(tensors: Mapping[str, Any], linears: list[Linear], task: Task) -> int:
    """Return the zeros in the pruned layers.

    Raises:
        StepError: a layer does not hold the pattern, or holds nothing but zeros or what is no number.
    """
    zeros = 0
    for linear in linears:
        weight = tensors[f"{linear.name}.weight"]
        here = int((weight == 0).sum())
        if not bool(weight.isfinite().all()) or here == weight.numel():
            raise StepError(
                Issue(task.field, f"{linear.name} is not a layer any more", "look at the model's weights")
            )
        if task.spec.structure == "2:4" and not masks.is_two_of_four(weight):
            raise StepError(Issue(task.field, f"{linear.name} does not hold 2:4", "report this as a defect"))
        zeros += here
    return zeros


def describe(spec: Any, layers: int, part: float) -> str:
    """Return the settings in short, and what the zeros do not do."""
    where = spec.structure or "Unstructured"
    if spec.structure == "Block":
        where = f"blocks of {spec.block_size}x{spec.block_size}"
    return f"{spec.method} {where}, {layers} layers, {100 * part:.1f}% of their weights zero, stored dense"


def read(place: Place) -> dict[str, Any]:
    """Return the stored tensors of the model that comes in, in memory of their own, linear layers rows × columns."""
    from safetensors.torch import load_file

    stored = load_file(str(place.source / hf.WEIGHTS))
    return turned({name: tensor.clone() for name, tensor in stored.items()}, place)


def turned(tensors: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return tensors with those transposed that the model's family stores columns × rows."""
    family = families.of_config(hf.read_json(place.source / hf.CONFIG))
    return {name: value.T.contiguous() if family.turned(name) else value for name, value in tensors.items()}


def write(tensors: Mapping[str, Any], place: Place) -> None:
    """Write tensors, linear layers rows × columns, beside the files that stay as they are."""
    from safetensors.torch import save_file

    save_file(turned(tensors, place), str(place.target / hf.WEIGHTS), metadata={"format": "pt"})
    hf.write_json(place.target / hf.CONFIG, hf.read_json(place.source / hf.CONFIG))
    hf.copy_generation_config(place.source, place.target)
    hf.copy_tokenizer(place.source, place.target)
    hf.tidy(place.target)
