"""Distil: the lean model learns the frozen large one's distribution over the next token, at the answers.

The loss is (1 - labelWeight) · T² · KL(teacher ‖ student) + labelWeight · cross-entropy (arXiv 1503.02531), and where
they are named what lies inside: hidden states and token relations (see :mod:`.inside`).
The teacher is asked once: its logits are kept in float16 beside the checkpoints, in parts that are each whole
or not there, so that a killed run asks again for one part at most, and later passes ask for none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.errors import Issue

from .. import devices, hf, memory
from ..batches import MICRO_ANSWERS, MICRO_TOKENS, Row
from ..shapes import ModelShape, forward_flops
from . import aware, inside, stopping, training
from .mapped import mapping_issues
from .protocol import Outcome, Place, Task, WithRows, Work, checked
from .teachers import PART, KeptTeacher, LiveTeacher, Teacher, keeps_logits, logits_bytes


class Distillation(WithRows):
    """Trains the student on the teacher's logits and the data set's answers."""

    name = "Distill"
    version = 1
    libraries = ("torch", "transformers")
    teaches = True

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All but what changes only the way."""
        return training.settings(spec)

    def issues(self, task: Task) -> list[Issue]:
        """Check the objectives, the data, and that both models speak the same vocabulary."""
        spec, found = task.spec, training.issues(task)
        if inside.looks(task):
            found += mapping_issues(task)
        if number(spec.temperature) <= 0:
            found.append(
                Issue(f"{task.field}.temperature", f"{spec.temperature} divides by nothing", "write 1")
            )
        found += aware.issues(task)
        if (
            (asks(task) or inside.looks(task))
            and task.teacher is not None
            and task.teacher.vocabulary != task.shape.vocabulary
        ):
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

    def trained(self, task: Task) -> int:
        """Return the parameters that are trained: all but the token table."""
        return task.shape.parameters - task.shape.embedding_parameters

    def memory(self, task: Task) -> int:
        """The teacher's pass, or the student's training, whichever holds more at once."""
        tokens, answers = training.micro(task)
        teacher = task.teacher or task.shape
        learning = memory.training_bytes(
            task.shape, self.trained(task), tokens, answers, task.shape.layers, logit_copies=8
        )
        learning += aware.held_bytes(task)
        if inside.looks(task):
            return checked(task, task.shape, learning + inside.held_bytes(task))
        if not asks(task):
            return checked(task, task.shape, learning)
        if not keeps_logits(training.chosen(task), task.shape.vocabulary):
            return checked(task, task.shape, learning + memory.weights_bytes(teacher))
        part = 2 * PART * MICRO_ANSWERS * task.shape.vocabulary
        asking = memory.forward_bytes(teacher, MICRO_TOKENS, MICRO_ANSWERS) + part
        return checked(task, task.shape, max(asking, learning))

    def disk(self, task: Task) -> int:
        """The artifact, the teacher's logits, and two checkpoints while one replaces the other."""
        rows = training.chosen(task)
        keeps = keeps_answers(task, rows)
        kept = logits_bytes(rows, task.shape.vocabulary) if keeps else 0
        trained = self.trained(task)
        return 2 * task.shape.parameters + kept + 2 * 12 * trained + stopping.disk(task, trained)

    def work(self, task: Task) -> Work:
        """The teacher's forward pass, and the student's forward and backward."""
        rows = training.chosen(task)
        tokens, answers = training.total_tokens(task), training.total_answers(task)
        flops = 3 * forward_flops(task.shape, tokens, answers) + training.looking_flops(task, task.shape)
        if asks(task) or inside.looks(task):
            once = sum(len(row.ids) for row in rows) * 1.02
            passes = 1.0 if keeps_answers(task, rows) else training.epochs(task)
            flops += forward_flops(task.teacher or task.shape, once, answers) * passes
        traffic = training.traffic(task, self.trained(task)) + aware.moved_bytes(task, training.passes(task))
        return Work(flops=flops, bytes=traffic + 30.0 * (task.teacher or task.shape).parameters, seconds=3.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Ask the teacher, train the student, write bf16."""
        student = learn(task, place, to_train)
        finish(student.model, place)
        return Outcome(
            len({name.rpartition(".")[0] for name in student.trained}),
            describe(task.spec, len(training.chosen(task)), student.done.steps),
            student.done.resumed_at,
            student.figures(),
        )


@dataclass
class Student:
    """A model after its training.

    Attributes:
        model: in float32.
        trained: the parameters that were trained, by name.
        done: how the training ended.
    """

    model: Any
    trained: dict[str, Any]
    done: training.Trained

    def figures(self) -> dict[str, float]:
        """Return what a report carries of the training."""
        return self.done.figures()


def learn(
    task: Task,
    place: Place,
    choose: Callable[[Any], dict[str, Any]],
    after_step: Callable[[int, int, Any], None] | None = None,
) -> Student:
    """Train the model that comes in on the teacher's logits and the data set's answers.

    Args:
        task: the step; its spec has the fields of a training, ``temperature`` and ``label_weight``.
        place: where it works.
        choose: takes the loaded model, prepares it where it must be, and returns what is to be trained, by name.
        after_step: see :func:`training.fit`.
    """
    import torch
    import torch.nn.functional as functional

    rows = training.chosen(task)
    tokenizer = hf.load_tokenizer(place.source)
    pad = int(tokenizer.eos_token_id)
    # Progress counts optimiser steps; the teacher's pass counts as as many as it takes work.
    steps, asked = training.total_steps(task), 0
    teacher: Teacher | None = None
    held = task.rows.validation if task.rows is not None and task.spec.early_stopping is not None else ()
    examiner: Teacher | None = None
    if asks(task) and not inside.looks(task):
        assert place.teacher is not None
        if held:
            examiner = KeptTeacher(place, held, pad, 0, steps, "examiner")
        if keeps_logits(rows, task.shape.vocabulary):
            asked = round(steps * asking_share(task))
            teacher = KeptTeacher(place, rows, pad, asked, asked + steps)
        else:
            teacher = LiveTeacher(place.teacher, rows, pad)
    model = hf.load_model(place.source)
    both = inside.Inside(task, model, place) if inside.looks(task) else None
    temperature, labels = number(task.spec.temperature), number(task.spec.label_weight)

    def loss_on(rows: Sequence[Row], teacher: Teacher | None, part: Sequence[int]) -> Any:
        ids, where, columns, wanted = training.collate(rows, part, pad, devices.of(model))
        if both is None:
            logits, within = training.answer_logits(model, ids, where, columns), 0.0
            told = teacher.logits(part) if teacher is not None else None
        else:
            mine, other = both.both(ids)
            logits = training.head_logits(model, mine.last_hidden_state[where, columns])
            told = both.told(other, where, columns) if asks(task) else None
            within = both.between(mine, other, rows, part)
        loss = labels * functional.cross_entropy(logits, wanted, reduction="sum") + within
        if told is not None:
            told = told.to(logits.device)
            divergence = functional.kl_div(
                functional.log_softmax(logits / temperature, -1),
                functional.log_softmax(told / temperature, -1),
                reduction="sum",
                log_target=True,
            )
            loss = loss + (1 - labels) * temperature**2 * divergence
        return loss

    trained = choose(model)
    judge = stopping.mean_loss(model, held, partial(loss_on, held, examiner))
    loss_of = partial(loss_on, rows, teacher)
    rounded = aware.attach(model, task.spec, task.shape)
    done = training.fit(
        task, place, trained, loss_of, model.train, offset=asked, judge=judge, after_step=after_step
    )
    aware.detach(model, rounded)
    with torch.no_grad():
        model.eval()
    return Student(model, trained, done)


def finish(model: Any, place: Place) -> None:
    """Write the trained model as bf16, with the tokenizer that it came with."""
    hf.save_model(model, place.target)
    hf.copy_tokenizer(place.source, place.target)


def asks(task: Task) -> bool:
    """Say whether the teacher's answers have a share in the loss."""
    return "Logits" in getattr(task.spec, "objectives", ["Logits"]) and number(task.spec.label_weight) < 1


def keeps_answers(task: Task, rows: Sequence[Row]) -> bool:
    """Say whether the teacher is asked once: for its answers alone, where they fit."""
    return asks(task) and not inside.looks(task) and keeps_logits(rows, task.shape.vocabulary)


def describe(spec: Any, rows: int, steps: int) -> str:
    """Return the settings in short."""
    return (
        f"{', '.join(getattr(spec, 'objectives', ['Logits']))}, temperature {spec.temperature}, label weight {spec.label_weight}, {rows} rows, "
        f"{steps} optimiser steps, learning rate {spec.learning_rate}{aware.describe(spec)}"
    )


def to_train(model: Any) -> dict[str, Any]:
    """Return the weights that are trained: all but the token table.

    The table is most of a small student; it comes from the teacher, fits the teacher's head, and training it
    on answers that use a handful of tokens costs time and memory for nothing.
    """
    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in tables}


def asking_share(task: Task) -> float:
    """Return the teacher's pass as a share of the training's work: what progress counts it as."""
    rows = training.chosen(task)
    tokens = sum(len(row.ids) for row in rows)
    asking = forward_flops(task.teacher or task.shape, tokens, sum(row.answers for row in rows))
    learning = 3 * forward_flops(task.shape, training.total_tokens(task), training.total_answers(task))
    return min(20.0, asking / max(1.0, learning))
