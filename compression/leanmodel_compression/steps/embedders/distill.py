"""Distil: the student learns to give the frozen teacher's vector of each text, and so to live in its space.

Per text the loss is 1 - cosine of the two vectors; where vectors are not scaled to length 1, also their squared
distance by the squared length of the teacher's. Hidden and Attention are as for classifiers, weighted beside it. No
labels are needed: any texts of the domain teach (Reimers & Gurevych 2020, arXiv 2004.09813, does so across languages).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from leanmodel_api.classification import EMBEDDING
from leanmodel_api.errors import Issue

from ... import devices
from ...batches import by_length
from ...classifiers import models
from ...classifiers.pooling import Pooling
from .. import stopping, training
from ..encoders.common import encoder
from ..encoders.distill import EncoderDistillation, Intermediate
from ..encoders.finetune import finish
from ..protocol import Outcome, Place, Task


class EmbeddingDistillation(EncoderDistillation):
    """Trains the student on the teacher's vectors."""

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All but what changes only the way, and what embeddings do not have."""
        found = {**super().settings(spec), "task": EMBEDDING}
        return {name: value for name, value in found.items() if name not in ("label_weight", "temperature")}

    def issues(self, task: Task) -> list[Issue]:
        """Check data and numbers, and that both models' vectors are as wide."""
        found = super().issues(task)
        teacher = task.teacher or task.shape
        if "Embeddings" in task.spec.objectives and teacher.hidden != task.shape.hidden:
            what = f"Embeddings compares vectors of {task.shape.hidden} and {teacher.hidden} numbers"
            found.append(
                Issue(f"{task.field}.objectives", what, "make the lean model from the large one by Prune")
            )
        return found

    def run(self, task: Task, place: Place) -> Outcome:
        """Train the student, write float32, and say how near it came on texts that it was not taught."""
        assert place.teacher is not None
        spec, rows = task.spec, training.chosen(task)
        held = task.rows.validation if task.rows is not None else ()
        student = models.load_base(place.source)
        teacher = models.load_base(place.teacher, devices.teacher())
        how = Pooling(encoder(task.shape).pooling, encoder(task.shape).normalize)
        loss_on = Vectors(task, student, teacher, how)
        trained = {name: part for name, part in student.named_parameters() if "pooler." not in name}
        judge = stopping.mean_loss(student, held, partial(loss_on, held))
        done = training.fit(task, place, trained, partial(loss_on, rows), student.train, judge=judge)
        student.eval()
        figures = done.figures()
        if held:
            figures["validationCosine"] = mean_cosine(student, teacher, how, held)
        finish(student, place)
        return Outcome(
            len({name.rpartition(".")[0] for name in trained}),
            f"{', '.join(spec.objectives)}, {len(rows)} rows, {done.words()}, learning rate {spec.learning_rate}",
            done.resumed_at,
            figures,
        )


class Vectors(Intermediate):
    """The loss of a micro-batch."""

    def __init__(self, task: Task, student: Any, teacher: Any, how: Pooling) -> None:
        """Listen to both models where it is wanted."""
        super().__init__(task, student, teacher)
        self.how, self.whole = how, "Embeddings" in task.spec.objectives

    def __call__(self, rows: Sequence[Any], part: Sequence[int]) -> Any:
        """Return the summed loss of the texts ``part`` of the rows."""
        import torch

        ids, mask, _ = models.collate(rows, part, devices.of(self.student))
        mine, told = self.both(ids, mask)
        loss: Any = self.between(mine, told, mask)
        if self.whole:
            one, other = self.how.of(mine.last_hidden_state, mask), self.how.of(told.last_hidden_state, mask)
            loss = loss + (1 - torch.nn.functional.cosine_similarity(one, other, dim=-1)).sum()
            if not self.how.normalize:
                loss = loss + (((one - other) ** 2).sum(-1) / (other**2).sum(-1).clamp(min=1e-9)).sum()
        return loss


def mean_cosine(student: Any, teacher: Any, how: Pooling, rows: Sequence[Any]) -> float:
    """Return the mean cosine of the two models' vectors of texts."""
    import torch

    total = 0.0
    with torch.no_grad():
        for part in by_length(rows):
            ids, mask, _ = models.collate(rows, part, devices.of(student))
            asked = {"input_ids": ids, "attention_mask": mask}
            one, other = (
                how.of(devices.asked(model, asked).last_hidden_state, mask) for model in (student, teacher)
            )
            total += float(torch.nn.functional.cosine_similarity(one, other, dim=-1).sum())
    return total / len(rows)
