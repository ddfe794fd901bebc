"""Finetune: a classification head on an encoder, all weights trained on the data set's labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from leanmodel_api.classification import TASK
from leanmodel_api.errors import Issue

from ... import devices, hf
from ...classifiers import models
from ...shapes import ModelShape
from .. import stopping, training
from ..protocol import Outcome, Place, Task, WithRows, Work
from .common import FLOAT, EncoderStep, encoder, looked, training_bytes, training_flops


class EncoderFinetuning(WithRows, EncoderStep):
    """Trains encoder and head together."""

    name = "Finetune"

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All but what changes only the way."""
        found = training.settings(spec)
        found.pop("lora_rank", None)
        return {**found, "task": TASK}

    def issues(self, task: Task) -> list[Issue]:
        """Check the data and the numbers."""
        return [*training.issues(task), *length_issues(task), *one_label(task)]

    def after(self, task: Task) -> ModelShape:
        """The model gets a head for the data set's labels."""
        return encoder(task.shape).with_labels(task.labels)

    def memory(self, task: Task) -> int:
        """Weights, gradients and moments of everything, and the largest micro-batch."""
        after = self.after(task)
        return looked(after, training_bytes(task, after))

    def disk(self, task: Task) -> int:
        """The artifact, and two checkpoints while one replaces the other."""
        count = self.after(task).parameters
        return (FLOAT + 2 * 12) * count + stopping.disk(task, count)

    def work(self, task: Task) -> Work:
        """Forward and backward through all layers."""
        traffic = training.traffic(task, task.shape.parameters)
        return Work(
            flops=training_flops(task, task.shape) + training.looking_flops(task, task.shape),
            bytes=traffic + 12.0 * task.shape.parameters,
            seconds=3.0,
        )

    def run(self, task: Task, place: Place) -> Outcome:
        """Make the head where there is none for these labels, train, and write float32."""
        import torch.nn.functional as functional

        model = models.load_with_head(place.source, task.labels, task.seed)
        rows, held = training.chosen(task), task.rows.validation if task.rows is not None else ()

        def loss_on(rows: Any, part: Any) -> Any:
            ids, mask, labels = models.collate(rows, part, devices.of(model))
            logits = model(input_ids=ids, attention_mask=mask).logits
            return functional.cross_entropy(logits, labels, reduction="sum")

        trained = dict(model.named_parameters())
        judge = stopping.mean_loss(model, held, partial(loss_on, held))
        done = training.fit(task, place, trained, partial(loss_on, rows), model.train, judge=judge)
        finish(model, place)
        return Outcome(
            len({name.rpartition(".")[0] for name in trained}),
            f"Full, all weights, labels {', '.join(task.labels)}, {len(rows)} rows, {done.words()}, "
            f"learning rate {task.spec.learning_rate}",
            done.resumed_at,
            done.figures(),
        )


def finish(model: Any, place: Place) -> None:
    """Write the trained model, with the tokenizer that it came with."""
    model.eval()
    models.save(model, place.target)
    hf.copy_tokenizer(place.source, place.target)


def one_label(task: Task) -> list[Issue]:
    """Return that there is nothing to tell apart."""
    rows = training.chosen(task) if task.rows is not None else ()
    if not rows or len({row.ids[-1] for row in rows}) > 1:
        return []
    found = f"all {len(rows)} rows of the train part have one label"
    return [Issue(f"{task.field}.dataSet", found, "give rows of at least two labels")]


def length_issues(task: Task) -> list[Issue]:
    """Return whether rows are longer than the model's positions."""
    limit = task.shape.positions
    if task.spec.max_length <= limit:
        return []
    found = f"{task.spec.max_length} tokens, and the model was made for {limit}"
    return [Issue(f"{task.field}.maxLength", found, f"write at most {limit}")]
