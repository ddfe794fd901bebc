"""Distil: the lean model learns the frozen large one's distribution over the next token, at the answers.

The loss is (1 - labelWeight) · T² · KL(teacher ‖ student) + labelWeight · cross-entropy (arXiv 1503.02531).
The teacher is asked once: its logits are kept in float16 beside the checkpoints, in parts that are each whole
or not there, so that a killed run asks again for one part at most, and later passes ask for none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from leanmodel_api.base import number
from leanmodel_api.errors import Issue

from .. import hf, memory
from ..batches import MICRO_ANSWERS, MICRO_TOKENS, Row, by_length
from ..shapes import ModelShape, forward_flops
from . import training
from .protocol import Outcome, Place, Task, Work, checked

# Logits are kept when they fit here; otherwise the teacher is asked again for every micro-batch.
KEPT_BYTES = 2 * 2**30
# Micro-batches of the teacher per part on disk.
PART = 4


class Distillation:
    """Trains the student on the teacher's logits and the data set's answers."""

    name = "Distill"
    version = 1
    libraries = ("torch", "transformers")
    teaches = True

    def data_set(self, spec: Any) -> tuple[bool, str | None]:
        """It learns from the train part."""
        return True, spec.data_set

    def max_length(self, spec: Any) -> int | None:
        """Rows are cut to the step's own length."""
        return int(spec.max_length)

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All but what changes only the way."""
        return training.settings(spec)

    def issues(self, task: Task) -> list[Issue]:
        """Check the objectives, the data, and that both models speak the same vocabulary."""
        spec, found = task.spec, training.issues(task)
        for objective in spec.objectives:
            if objective != "Logits":
                found.append(
                    Issue(f"{task.field}.objectives", f"{objective} is not supported yet", "write [Logits]")
                )
        if number(spec.temperature) <= 0:
            found.append(
                Issue(f"{task.field}.temperature", f"{spec.temperature} divides by nothing", "write 1")
            )
        if task.teacher is not None and task.teacher.vocabulary != task.shape.vocabulary:
            found.append(
                Issue(
                    task.field,
                    f"teacher and student differ in vocabulary ({task.teacher.vocabulary} and "
                    f"{task.shape.vocabulary} tokens)",
                    "make the lean model from the large one by Prune, or bring it along as lean.source",
                )
            )
        return found

    def after(self, task: Task) -> ModelShape:
        """The model keeps its shape."""
        return task.shape

    def memory(self, task: Task) -> int:
        """The teacher's pass, or the student's training, whichever holds more at once."""
        tokens, answers = training.micro(task)
        teacher = task.teacher or task.shape
        learning = memory.training_bytes(
            task.shape, trained_parameters(task.shape), tokens, answers, task.shape.layers, logit_copies=8
        )
        if not keeps_logits(training.chosen(task), task.shape.vocabulary):
            return checked(task, task.shape, learning + memory.weights_bytes(teacher))
        part = 2 * PART * MICRO_ANSWERS * task.shape.vocabulary
        asking = memory.forward_bytes(teacher, MICRO_TOKENS, MICRO_ANSWERS) + part
        return checked(task, task.shape, max(asking, learning))

    def disk(self, task: Task) -> int:
        """The artifact, the teacher's logits, and two checkpoints while one replaces the other."""
        rows = training.chosen(task)
        kept = logits_bytes(rows, task.shape.vocabulary) if keeps_logits(rows, task.shape.vocabulary) else 0
        return 2 * task.shape.parameters + kept + 2 * 12 * trained_parameters(task.shape)

    def work(self, task: Task) -> Work:
        """The teacher's forward pass, and the student's forward and backward."""
        rows = training.chosen(task)
        tokens, answers = training.total_tokens(task), training.total_answers(task)
        once = sum(len(row.ids) for row in rows) * 1.02
        passes = 1.0 if keeps_logits(rows, task.shape.vocabulary) else training.epochs(task)
        flops = forward_flops(task.teacher or task.shape, once, answers) * passes
        flops += 3 * forward_flops(task.shape, tokens, answers)
        traffic = training.traffic(task, trained_parameters(task.shape))
        return Work(flops=flops, bytes=traffic + 30.0 * (task.teacher or task.shape).parameters, seconds=3.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Ask the teacher, train the student, write bf16."""
        import torch
        import torch.nn.functional as functional

        assert place.teacher is not None
        rows = training.chosen(task)
        tokenizer = hf.load_tokenizer(place.source)
        pad = int(tokenizer.eos_token_id)
        # Progress counts optimiser steps; the teacher's pass counts as as many as it takes work.
        steps, asked = training.total_steps(task), 0
        teacher: Teacher
        if keeps_logits(rows, task.shape.vocabulary):
            asked = round(steps * asking_share(task))
            teacher = KeptTeacher(place, rows, pad, asked, asked + steps)
        else:
            teacher = LiveTeacher(place.teacher, rows, pad)
        model = hf.load_model(place.source)
        temperature, labels = number(task.spec.temperature), number(task.spec.label_weight)

        def loss_of(part: Sequence[int]) -> Any:
            ids, where, columns, wanted = training.collate(rows, part, pad)
            logits = training.answer_logits(model, ids, where, columns)
            loss = labels * functional.cross_entropy(logits, wanted, reduction="sum")
            if labels < 1:
                told = teacher.logits(part)
                divergence = functional.kl_div(
                    functional.log_softmax(logits / temperature, -1),
                    functional.log_softmax(told / temperature, -1),
                    reduction="sum",
                    log_target=True,
                )
                loss = loss + (1 - labels) * temperature**2 * divergence
            return loss

        trained = to_train(model)
        done = training.fit(task, place, trained, loss_of, model.train, offset=asked)
        with torch.no_grad():
            model.eval()
        hf.save_model(model, place.target)
        hf.copy_tokenizer(place.source, place.target)
        return Outcome(
            len({name.rpartition(".")[0] for name in trained}),
            describe(task.spec, len(rows), done.steps),
            done.resumed_at,
            {"trainLoss": done.loss, "optimiserSteps": float(done.steps)},
        )


def describe(spec: Any, rows: int, steps: int) -> str:
    """Return the settings in short."""
    return (
        f"Logits, temperature {spec.temperature}, label weight {spec.label_weight}, {rows} rows, "
        f"{steps} optimiser steps, learning rate {spec.learning_rate}"
    )


def to_train(model: Any) -> dict[str, Any]:
    """Return the weights that are trained: all but the token table.

    The table is most of a small student; it comes from the teacher, fits the teacher's head, and training it
    on answers that use a handful of tokens costs time and memory for nothing.
    """
    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in tables}


def trained_parameters(shape: ModelShape) -> int:
    """Return the parameters that are trained."""
    return shape.parameters - shape.embedding_parameters


def logits_bytes(rows: Sequence[Row], vocabulary: int) -> int:
    """Return the bytes of the teacher's logits in float16."""
    return 2 * vocabulary * sum(row.answers for row in rows)


def keeps_logits(rows: Sequence[Row], vocabulary: int) -> bool:
    """Say whether the teacher's logits are kept."""
    return logits_bytes(rows, vocabulary) <= KEPT_BYTES


def asking_share(task: Task) -> float:
    """Return the teacher's pass as a share of the training's work: what progress counts it as."""
    rows = training.chosen(task)
    tokens = sum(len(row.ids) for row in rows)
    asking = forward_flops(task.teacher or task.shape, tokens, sum(row.answers for row in rows))
    learning = 3 * forward_flops(task.shape, training.total_tokens(task), training.total_answers(task))
    return min(20.0, asking / max(1.0, learning))


class Teacher(Protocol):
    """Gives the frozen model's logits at the answer positions of a micro-batch, in collate's order."""

    def logits(self, part: Sequence[int]) -> Any:
        """Return logits in float32, positions × vocabulary."""
        ...


class LiveTeacher:
    """A teacher that is asked whenever its logits are wanted."""

    def __init__(self, folder: Path, rows: Sequence[Row], pad: int):
        """Load the frozen model."""
        self._model, self._rows, self._pad = hf.load_model(folder), rows, pad

    def logits(self, part: Sequence[int]) -> Any:
        """Ask the model."""
        import torch

        ids, where, columns, _ = training.collate(self._rows, part, self._pad)
        with torch.no_grad():
            return training.answer_logits(self._model, ids, where, columns)


class KeptTeacher:
    """A teacher that was asked once; its logits lie in the scratch folder and are read row by row."""

    def __init__(self, place: Place, rows: Sequence[Row], pad: int, units: int, total: int):
        """Ask for what is not there yet; ``units`` of the step's ``total`` are told meanwhile."""
        from safetensors import safe_open

        folder = place.scratch / f"teacher-{place.fingerprint[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        parts = by_length(rows)
        chunks = [parts[at : at + PART] for at in range(0, len(parts), PART)]
        self._where: dict[int, int] = {
            index: at for at, chunk in enumerate(chunks) for part in chunk for index in part
        }
        missing = [at for at in range(len(chunks)) if not _part_path(folder, at).exists()]
        if missing:
            _ask(place, folder, chunks, missing, rows, pad, units, total)
        paths = [_part_path(folder, at) for at in range(len(chunks))]
        self._files: list[Any] = [safe_open(str(path), framework="pt") for path in paths]

    def logits(self, part: Sequence[int]) -> Any:
        """Read the rows of the micro-batch."""
        import torch

        found = [self._files[self._where[index]].get_tensor(str(index)) for index in part]
        return torch.cat(found).float()


def _ask(
    place: Place,
    folder: Path,
    chunks: list[list[list[int]]],
    missing: list[int],
    rows: Sequence[Row],
    pad: int,
    units: int,
    total: int,
) -> None:
    """Ask the teacher for the parts that are missing, and put each in place whole."""
    assert place.teacher is not None
    live = LiveTeacher(place.teacher, rows, pad)
    most = sum(len(chunk) for chunk in chunks)
    done = most - sum(len(chunks[at]) for at in missing)
    place.progress(units * done / most, total, "asking the teacher")
    for at in missing:
        tensors = {}
        for part in chunks[at]:
            logits, begin = live.logits(part), 0
            for index in part:
                end = begin + rows[index].answers
                tensors[str(index)] = logits[begin:end].half().clone()
                begin = end
            done += 1
            place.progress(units * done / most, total, f"asking the teacher, {done}/{most}")
        _write_part(folder, at, tensors)


def _part_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.safetensors"


def _write_part(folder: Path, number: int, tensors: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    building = folder / f"building-{os.getpid()}"
    save_file(tensors, str(building))
    building.rename(_part_path(folder, number))
