"""Export: the classifier as ONNX, in float32 or with 8-bit weights, held against torch in ONNX Runtime."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanmodel_api.classification import TASK
from leanmodel_api.errors import Issue

from ... import devices, hf, memory
from ...classifiers import models, onnx_file
from ...shapes import ModelShape
from ..protocol import Outcome, Place, StepError, Task, Work
from .common import FLOAT, EncoderStep, looked

# The largest difference of a logit that is let pass, as a share of the largest logit (of 1 at least).
FLOAT_TOLERANCE = 1e-3
# The mean difference of a class's probability that is let pass in 8 bits. On random tokens a classifier wavers: where a
# MiniLM and a student were 0.02 and 0.05 off on them, the MiniLM 0.001 on messages. A layer too many or too few is 0.16 off, swapped
# ones 0.3; what 8 bits cost on real texts the validation rows and the gates say.
INT8_TOLERANCE = 0.1
# Texts of random tokens, of so many tokens each, that are answered by both; the last row of each is padded.
PROBES = ((1, 5), (3, 16), (8, 48))
# What exporter, its graph library and ONNX Runtime hold beside the weights (40 to 90 MiB measured, on models of no size and
# on a MiniLM and its students).
EXPORTER_BYTES = 90 * memory.MIB


class Exporting(EncoderStep):
    """Writes the file that ONNX Runtime serves.

    Args:
        keeps_weights: whether the safetensors stay beside it, for a model that also teaches.
    """

    name = "Export"
    version = 2
    libraries = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")

    def __init__(self, keeps_weights: bool = False):
        """Make the step."""
        self.keeps_weights = keeps_weights

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """Format, precision, and whether the weights stay."""
        return {
            "format": spec.format,
            "precision": spec.precision,
            "weights": self.keeps_weights,
            "task": TASK,
        }

    def issues(self, task: Task) -> list[Issue]:
        """Every family is exported in every precision (tests/compression hold it)."""
        return []

    def memory(self, task: Task) -> int:
        """The exporter holds the weights as torch's, as the graph's, and as the file's bytes; quantising, half as much more.

        Measured on a MiniLM and its students: 22 to 25 bytes a parameter in 8 bits.
        """
        held = int((6.25 if task.spec.precision == "Int8" else 4) * FLOAT * task.shape.parameters)
        return looked(task.shape, memory.PROCESS_BYTES + EXPORTER_BYTES + held)

    def disk(self, task: Task) -> int:
        """The file, one more while it is quantised, and the weights where they stay."""
        return (2 + self.keeps_weights) * FLOAT * task.shape.parameters

    def work(self, task: Task) -> Work:
        """Tracing takes seconds per layer, whatever the sizes."""
        return Work(bytes=40.0 * task.shape.parameters, seconds=6.0 + 0.8 * task.shape.layers)

    def run(self, task: Task, place: Place) -> Outcome:
        """Export, quantise, and hold the file's answers against torch's."""
        place.progress(0, 3, "exporting")
        model = self.load(place.source)
        path, int8 = place.target / onnx_file.NAME, task.spec.precision == "Int8"
        exported = place.scratch / onnx_file.NAME if int8 else path
        operators = self.write(model, exported, task)
        place.progress(1, 3, "quantising" if int8 else "checking")
        if int8:
            operators = onnx_file.quantise(exported, path)
            exported.unlink()
        if operators < 1:
            raise StepError(Issue(task.field, "no operator was quantised", "write precision: Float32"))
        place.progress(2, 3, "checking")
        figures, issue = self.held(model, onnx_file.session(path), task, int8)
        if issue is not None:
            raise StepError(issue)
        hf.write_json(place.target / hf.CONFIG, hf.read_json(place.source / hf.CONFIG))
        hf.copy_tokenizer(place.source, place.target)
        if self.keeps_weights:
            shutil.copyfile(place.source / hf.WEIGHTS, place.target / hf.WEIGHTS)
        hf.tidy(place.target, "float32")
        place.progress(3, 3, "")
        return Outcome(operators, f"ONNX {task.spec.precision}, {operators} operators", None, figures)

    def load(self, folder: Path) -> Any:
        """Return the model to export."""
        return models.load(folder, devices.CPU)

    def write(self, model: Any, path: Path, task: Task) -> int:
        """Export it in float32; return how many operators the file has."""
        return onnx_file.export(model, path)

    def held(self, model: Any, session: Any, task: Task, int8: bool) -> tuple[dict[str, float], Issue | None]:
        """Hold the file's answers against torch's; return figures, and what is wrong with them."""
        found = compare(model, session, task.shape)
        figures = {"largestLogitDifference": found.logits, "meanProbabilityDifference": found.probability}
        return figures, found.issue(task.field, int8)


@dataclass(frozen=True)
class Difference:
    """How far the file's answers lie from torch's: largest logit (by the largest logit), mean probability."""

    logits: float
    probability: float

    def issue(self, field: str, int8: bool) -> Issue | None:
        """Return what to write when they are too far apart."""
        if int8 and not self.probability <= INT8_TOLERANCE:
            found = f"in 8 bits a class's probability is {self.probability:.3f} off in the mean, {INT8_TOLERANCE} at most"
            return Issue(f"{field}.precision", found, "write Float32")
        if not int8 and not self.logits <= FLOAT_TOLERANCE:
            found = f"ONNX Runtime's logits are {self.logits:.2g} off torch's, {FLOAT_TOLERANCE} at most"
            return Issue(field, found, "report this")
        return None


def compare(model: Any, session: Any, shape: ModelShape) -> Difference:
    """Return how far ONNX Runtime's answers to seeded random texts lie from torch's."""
    import torch

    apart, top, probabilities = 0.0, 1.0, []
    for wanted, found in probes(model, session, shape, lambda out, _: out.logits):
        apart, top = max(apart, float((found - wanted).abs().max())), max(top, float(wanted.abs().max()))
        probabilities.append((found.softmax(-1) - wanted.softmax(-1)).abs().flatten())
    return Difference(apart / top, float(torch.cat(probabilities).mean()))


def probes(
    model: Any, session: Any, shape: ModelShape, answer: Callable[[Any, Any], Any]
) -> Iterator[tuple[Any, Any]]:
    """Yield torch's and ONNX Runtime's answers to batches of seeded random texts.

    Args:
        answer: takes the model's output and the mask, returns what the file gives.
    """
    import torch

    draw = torch.Generator().manual_seed(0)
    for texts, most in PROBES:
        tokens = min(most, shape.positions)
        ids = torch.randint(0, shape.vocabulary, (texts, tokens), generator=draw)
        mask = torch.ones_like(ids)
        mask[-1, tokens // 2 + 1 :] = 0
        with torch.no_grad():
            wanted = answer(model(input_ids=ids, attention_mask=mask), mask)
        yield wanted, onnx_file.logits(session, ids, mask)
