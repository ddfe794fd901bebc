"""Distil: the student learns the frozen teacher's labels' distribution and, where wanted, its hidden states.

Per text the loss is (1 - labelWeight) · T² · KL(teacher ‖ student) + labelWeight · cross-entropy (arXiv 1503.02531)
+ hiddenWeight · (1 - cosine of the hidden states), the mean over the student's layers and the text's tokens
(DistilBERT, arXiv 1910.01108; layers mapped evenly as in TinyBERT, arXiv 1909.10351) + attentionWeight · KL of the
token relations (MiniLM, see :mod:`.relations`). A part whose objective is not named is left out: [Attention] with
labelWeight 0 is MiniLM's general distillation, and a second Distill with Logits teaches the task after it (TinyBERT).
Dropout and all other chance is a function of (seed, optimiser step), so a killed and resumed training ends with the
same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.classification import TASK
from leanmodel_api.errors import Issue

from ... import devices
from ...classifiers import models
from ...shapes import ModelShape, forward_flops
from .. import stopping, training
from ..mapped import attention_pairs, hidden_pairs, mapping_issues, relation_heads
from ..protocol import Outcome, Place, Task, WithRows, Work
from ..relations import Recorder, even, hidden_loss, relation_bytes, relation_loss
from .common import (
    FLOAT,
    EncoderStep,
    activation_bytes,
    encoder,
    labels_of,
    longest,
    looked,
    training_bytes,
    training_flops,
)
from .finetune import finish, length_issues


class EncoderDistillation(WithRows, EncoderStep):
    """Trains the student on teacher and labels."""

    name = "Distill"
    teaches = True

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All but what changes only the way."""
        return {**training.settings(spec), "task": TASK}

    def issues(self, task: Task) -> list[Issue]:
        """Check the data and the numbers, and that the two models fit."""
        found = [*training.issues(task), *length_issues(task)]
        if number(task.spec.temperature) <= 0:
            what = f"{task.spec.temperature} divides by nothing"
            found.append(Issue(f"{task.field}.temperature", what, "write 1"))
        found += mapping_issues(task)
        return found

    def after(self, task: Task) -> ModelShape:
        """A student that was brought along without a head for these labels gets one."""
        shape = encoder(task.shape)
        wanted = labels_of(task)
        return shape if shape.labels == wanted else shape.with_labels(wanted)

    def memory(self, task: Task) -> int:
        """The student's training beside the teacher and what its pass holds."""
        teacher = task.teacher or task.shape
        tokens, _ = training.micro(task)
        # The teacher's, and the student's with their gradients.
        states = FLOAT * tokens * teacher.hidden * (teacher.layers + 1)
        states += 2 * FLOAT * tokens * task.shape.hidden * (task.shape.layers + 1)
        beside = FLOAT * teacher.parameters + activation_bytes(teacher, tokens, 1)
        beside += states if "Hidden" in task.spec.objectives else 0
        if "Attention" in task.spec.objectives:
            pairs = len(attention_pairs(task))
            beside += relation_bytes(tokens, longest(task.rows), relation_heads(task), pairs, teacher)
        return looked(task.shape, training_bytes(task, task.shape) + beside)

    def disk(self, task: Task) -> int:
        """The artifact, and two checkpoints while one replaces the other."""
        return (FLOAT + 2 * 12) * task.shape.parameters + stopping.disk(task, task.shape.parameters)

    def work(self, task: Task) -> Work:
        """The student's training, and the teacher's forward pass in every epoch."""
        teacher = task.teacher or task.shape
        asking = forward_flops(teacher, training.total_tokens(task), training.total_answers(task))
        traffic = training.traffic(task, task.shape.parameters) + 12.0 * teacher.parameters
        looking = training.looking_flops(task, task.shape) + training.looking_flops(task, teacher)
        flops = training_flops(task, task.shape) + asking + looking
        return Work(flops=flops, bytes=traffic, seconds=3.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Train the student, and write float32."""

        assert place.teacher is not None
        spec, rows = task.spec, training.chosen(task)
        held = task.rows.validation if task.rows is not None else ()
        student = models.load_with_head(place.source, labels_of(task), task.seed)
        teacher = models.load(place.teacher, devices.teacher())
        loss_on = Objectives(task, student, teacher)
        trained = dict(student.named_parameters())
        judge = stopping.mean_loss(student, held, partial(loss_on, held))
        done = training.fit(task, place, trained, partial(loss_on, rows), student.train, judge=judge)
        finish(student, place)
        return Outcome(
            len({name.rpartition(".")[0] for name in trained}),
            f"{', '.join(spec.objectives)}, temperature {spec.temperature}, label weight {spec.label_weight}, "
            f"{len(rows)} rows, {done.words()}, learning rate {spec.learning_rate}",
            done.resumed_at,
            done.figures(),
        )


class Intermediate:
    """What of a model's inside is matched, each part with its weight."""

    def __init__(self, task: Task, student: Any, teacher: Any) -> None:
        """Listen to both models' attention where it is matched."""
        spec = task.spec
        self.student, self.teacher = student, teacher
        self.hidden = number(spec.hidden_weight or "1") if "Hidden" in spec.objectives else 0.0
        self.attention = number(spec.attention_weight or "1") if "Attention" in spec.objectives else 0.0
        self.states, self.relations = hidden_pairs(task), attention_pairs(task)
        self.heads = relation_heads(task)
        if self.attention:
            self.mine = Recorder(student, {one for one, _ in self.relations})
            self.theirs = Recorder(teacher, {other for _, other in self.relations})

    def both(self, ids: Any, mask: Any) -> tuple[Any, Any]:
        """Return the student's and the teacher's outputs of a micro-batch, both on the student's device."""
        import torch

        asked = {"input_ids": ids, "attention_mask": mask}
        with torch.no_grad():
            told = devices.asked(self.teacher, asked, output_hidden_states=self.hidden > 0)
        return self.student(**asked, output_hidden_states=self.hidden > 0), told

    def between(self, mine: Any, told: Any, mask: Any) -> Any:
        """Return the summed loss of what lies inside, 0 where nothing of it is matched."""
        loss: Any = 0.0
        if self.hidden:
            apart = hidden_loss(mine.hidden_states, told.hidden_states, even(mask), self.states)
            loss = loss + self.hidden * apart
        if self.attention:
            one, other = self.mine.take(), self.theirs.take()
            ours = [one[layer] for layer, _ in self.relations]
            # The teacher's may come from another device.
            theirs = [tuple(part.to(mask.device) for part in other[layer]) for _, layer in self.relations]
            loss = loss + self.attention * relation_loss(ours, theirs, mask, even(mask), self.heads)
        return loss


class Objectives(Intermediate):
    """The loss of a classifier's micro-batch."""

    def __init__(self, task: Task, student: Any, teacher: Any) -> None:
        """Read the weights of labels and teacher."""
        super().__init__(task, student, teacher)
        spec = task.spec
        self.temperature, self.labelled = number(spec.temperature), number(spec.label_weight)
        self.told = 1 - self.labelled if "Logits" in spec.objectives else 0.0
        theirs = encoder(task.teacher or task.shape).labels
        mine = labels_of(task)
        # The teacher's logits in the student's order, where the two have grown up apart.
        self.order = [theirs.index(label) for label in mine] if theirs != mine else None

    def __call__(self, rows: Sequence[Any], part: Sequence[int]) -> Any:
        """Return the summed loss of the texts ``part`` of the rows."""
        import torch.nn.functional as functional

        ids, mask, wanted = models.collate(rows, part, devices.of(self.student))
        mine, told = self.both(ids, mask)
        loss = self.labelled * functional.cross_entropy(mine.logits, wanted, reduction="sum")
        if self.told:
            wise = told.logits if self.order is None else told.logits[:, self.order]
            divergence = functional.kl_div(
                functional.log_softmax(mine.logits / self.temperature, -1),
                functional.log_softmax(wise / self.temperature, -1),
                reduction="sum",
                log_target=True,
            )
            loss = loss + self.told * self.temperature**2 * divergence
        return loss + self.between(mine, told, mask)
