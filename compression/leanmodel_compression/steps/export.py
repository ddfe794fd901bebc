"""Export: the lean decoder as a GGUF file for small devices, beside the weights that vLLM serves.

The file is held against torch in llama.cpp itself, in a process of its own: texts must be split into the same
tokens, and of greedily answered prompts every position's distribution must be torch's within a tolerance. llama.cpp
rounds activations too (to 16 bits beside F16 weights, to 8 beside Q8_0), so equality is not to be had.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leanmodel_api.errors import Issue

from .. import devices, hf, memory
from ..edge import gguf_file, runtime, vocabulary
from ..shapes import ModelShape, forward_flops
from . import training
from .protocol import Outcome, Place, StepError, Task, WithoutRows, Work, checked

# Half the sum of differences of probabilities, in the mean over positions; and how much less likely than torch's
# own choice a greedy token may be in torch. Measured with SmolLM2-135M: see docs/techniques/export.md.
TOLERANCES = {"Float32": (0.005, 0.02), "Float16": (0.01, 0.04), "Int8": (0.05, 0.15)}
TEXTS = (
    "The capital of France is",
    "WINNER!! You've won a £1,000 prize; call 09061701461 before 12:30.",
    "def add(a, b):\n    return a + b\n\n\tprint(add(2, 40))",
    "Größe, naïve, 東京, здравствуйте, emoji 🙂 and  two  spaces",
    " it's they'll 3.14159 x=1e-05",
)
"""Texts that are split, and answered, in both runtimes."""
RANDOM = ((5, 1), (40, 2))
"""Further prompts: so many tokens, drawn by that seed."""
ANSWER = 8
ALTERNATIVES = 40
PROBE_TOKENS = 64
# What llama.cpp holds beside the file: its program, the prompt's keys and values, buffers.
LLAMA_CPP_BYTES = 250 * memory.MIB


class Exporting(WithoutRows):
    """Writes the file for small devices."""

    name = "Export"
    version = 1
    libraries = ("gguf", "xllamacpp", "torch", "transformers")
    teaches = False

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """Format and precision."""
        return {"format": spec.format, "precision": spec.precision}

    def issues(self, task: Task) -> list[Issue]:
        """Check that llama.cpp knows the architecture, that blocks fit, and that it is here to be asked."""
        spec, field, shape = task.spec, task.field, task.shape
        if spec.format != "GGUF":
            found = f"{spec.format} of a decoder is not supported yet"
            return [Issue(f"{field}.format", found, "write GGUF, or remove the step: vLLM needs none")]
        if shape.architecture not in gguf_file.FAMILIES:
            known = ", ".join(gguf_file.FAMILIES)
            found = f"GGUF of {shape.architecture} is not supported yet"
            return [Issue(f"{field}.format", found, f"remove the step, or name a model of {known}")]
        found_issues = [
            Issue(
                f"{field}.format",
                f"the model has {extra}, which is not written to GGUF yet",
                "remove the step, or convert the safetensors with llama.cpp's own converter",
            )
            for extra in shape.extras
        ]
        if task.tokenizer not in ("", "BPE"):
            words = f"GGUF of a {task.tokenizer} tokenizer is not supported yet"
            found_issues.append(
                Issue(f"{field}.format", words, "remove the step; byte-level BPE can be written")
            )
        bad = sorted({linear.columns for linear in shape.linears()} | {shape.hidden})
        bad = [width for width in bad if width % gguf_file.BLOCK]
        if spec.precision == "Int8" and bad:
            words = (
                f"Int8 has blocks of {gguf_file.BLOCK} columns, and layers have {', '.join(map(str, bad))}"
            )
            found_issues.append(Issue(f"{field}.precision", words, "write Float16"))
        if lacking := runtime.missing():
            words = f"llama.cpp, in which the file is checked, lacks {lacking}"
            advice = "install leanmodel[compression], and Debian's libgomp1 (Fedora: libgomp)"
            found_issues.append(Issue(f"{field}.format", words, advice))
        return found_issues

    def after(self, task: Task) -> ModelShape:
        """The model stays as it is; a file comes beside it."""
        return task.shape

    def memory(self, task: Task) -> int:
        """Writing holds the file's tensors; then llama.cpp holds the file, and after it torch the weights."""
        size = gguf_file.expected_bytes(task.shape, task.spec.precision)
        # The weights' own file is mapped meanwhile, and the largest table is converted in float32.
        table = 2 * memory.FLOAT * task.shape.vocabulary * task.shape.hidden
        writing = memory.PROCESS_BYTES + size + 2 * task.shape.parameters + table
        asking = memory.PROCESS_BYTES + size + LLAMA_CPP_BYTES
        comparing = memory.forward_bytes(task.shape, PROBE_TOKENS, ANSWER)
        return checked(task, task.shape, max(writing, asking, comparing))

    def disk(self, task: Task) -> int:
        """The file, and a copy of the weights."""
        return gguf_file.expected_bytes(task.shape, task.spec.precision) + 2 * task.shape.parameters

    def work(self, task: Task) -> Work:
        """Converting, and a few short passes in both runtimes; llama.cpp takes seconds to get going."""
        tokens = (len(TEXTS) + len(RANDOM)) * PROBE_TOKENS
        return Work(
            flops=2 * forward_flops(task.shape, tokens, tokens),
            bytes=60.0 * task.shape.parameters,
            seconds=6.0,
        )

    def run(self, task: Task, place: Place) -> Outcome:
        """Write the file, ask llama.cpp, hold its answers against torch's."""
        spec, field = task.spec, task.field
        path = place.target / gguf_file.NAME
        place.progress(0, 3, "writing")
        try:
            tensors = gguf_file.write(place.source, path, task.shape, spec.precision)
        except vocabulary.UnsuitedError as error:
            found = f"the tokenizer cannot be written to GGUF: {error}"
            raise StepError(Issue(f"{field}.format", found, "remove the step")) from error
        memory.give_back()
        place.progress(1, 3, "asking llama.cpp")
        tokenizer = hf.load_tokenizer(place.source)
        wanted = [list(tokenizer(text)["input_ids"]) for text in TEXTS]
        prompts = [*wanted, *random_prompts(task.shape.vocabulary)]
        try:
            texts, answers = runtime.ask(path, TEXTS, prompts, ANSWER, ALTERNATIVES, place.scratch)
        except runtime.RuntimeFailedError as error:
            found = f"llama.cpp does not answer from the file ({error})"
            raise StepError(Issue(field, found, "report this")) from error
        for text, mine, theirs in zip(TEXTS, wanted, texts, strict=True):
            if mine != theirs:
                found = f"llama.cpp splits {text!r} into {len(theirs)} other tokens than the {len(mine)} it was trained on"
                raise StepError(Issue(f"{field}.format", found, "remove the step"))
        place.progress(2, 3, "comparing answers")
        difference = compare(hf.load_model(place.source, device=devices.CPU), prompts, answers)
        if issue := difference.issue(field, spec.precision):
            raise StepError(issue)
        keep(place)
        place.progress(3, 3, "")
        size = path.stat().st_size
        detail = f"GGUF {gguf_file.TYPES[spec.precision]}, {size / 1e6:.1f} MB, {tensors} tensors"
        return Outcome(tensors, detail, None, {"exportedBytes": float(size), **difference.figures()})


@dataclass(frozen=True)
class Difference:
    """How far llama.cpp's greedy answers lie from torch's.

    Attributes:
        distance: between the distributions of a position, half the sum of differences; the mean over positions.
        worse: by how much a token that llama.cpp chose is less likely in torch than torch's own choice, at most.
        same: share of positions at which both choose the same token.
        positions: how many were compared.
    """

    distance: float
    worse: float
    same: float
    positions: int

    def figures(self) -> dict[str, float]:
        """Return them for the report."""
        return {
            "probabilityDistance": self.distance,
            "greedyWorseBy": self.worse,
            "greedyAgreement": self.same,
            "comparedPositions": float(self.positions),
        }

    def issue(self, field: str, precision: str) -> Issue | None:
        """Return what to write when they are too far apart."""
        distance, worse = TOLERANCES[precision]
        if self.positions and self.distance <= distance and self.worse <= worse:
            return None
        found = (
            f"llama.cpp's distributions are {self.distance:.4f} off torch's in the mean ({distance} at most) and its "
            f"greedy tokens up to {self.worse:.4f} less likely ({worse} at most), over {self.positions} positions"
        )
        finer = {"Int8": "write Float16", "Float16": "write Float32"}.get(precision, "report this")
        return Issue(f"{field}.precision", found, finer)


def compare(model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[runtime.Answer]) -> Difference:
    """Give torch the prompts with llama.cpp's answers, and compare position by position.

    Args:
        model: in float32.
        prompts: token numbers.
        answers: llama.cpp's, one for each prompt.
    """
    import torch

    distance = worse = same = 0.0
    positions = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = [*prompt, *answer.tokens]
        with torch.no_grad():
            hidden = model.base_model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
            chances = training.head_logits(model, hidden[len(prompt) - 1 : len(ids) - 1]).softmax(-1)
        for mine, token, told in zip(chances, answer.tokens, answer.likeliest, strict=True):
            numbers = torch.tensor(list(told))
            theirs = torch.tensor(list(told.values())).exp()
            rest = (mine[numbers].sum() - theirs.sum()).abs()
            distance += 0.5 * float((mine[numbers] - theirs).abs().sum() + rest)
            worse = max(worse, float(mine.max() - mine[token]))
            same += float(mine.argmax() == token)
            positions += 1
    count = max(1, positions)
    return Difference(distance / count, worse, same / count, positions)


def random_prompts(vocabulary_size: int) -> list[list[int]]:
    """Return the seeded prompts."""
    import torch

    return [
        torch.randint(0, vocabulary_size, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()
        for tokens, seed in RANDOM
    ]


def keep(place: Place) -> None:
    """Copy what vLLM serves beside the file."""
    for name in (hf.WEIGHTS, hf.CONFIG):
        shutil.copyfile(place.source / name, place.target / name)
    hf.copy_generation_config(place.source, place.target)
    hf.copy_tokenizer(place.source, place.target)
    hf.tidy(place.target)
