"""Which layers of student and teacher are held against each other, and whether they can be. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from leanmodel_api.errors import Issue

from ..classifiers.shapes import EncoderShape
from ..shapes import ModelShape
from .encoders.prune import spread
from .protocol import Task

Pairs = list[tuple[int, int]]


def hidden_pairs(task: Task) -> Pairs:
    """Return the pairs (student, teacher) of Hidden: as written, or all of the student's, evenly spread."""
    of = _teacher(task).layers
    return _written(task) or list(enumerate(spread(of, task.shape.layers)))


def attention_pairs(task: Task) -> Pairs:
    """Return the pairs of Attention: as written, or the last layers (arXiv 2002.10957)."""
    return _written(task) or [(task.shape.layers - 1, _teacher(task).layers - 1)]


def relation_heads(task: Task) -> int:
    """Return the heads into which Attention cuts its vectors."""
    shape = task.shape
    return int(
        task.spec.relation_heads or (shape.heads if isinstance(shape, EncoderShape) else shape.kv_heads)
    )


def relation_widths(shape: ModelShape) -> set[int]:
    """Return how wide queries, keys and values are; a decoder's keys may be narrower."""
    if isinstance(shape, EncoderShape):
        return {shape.relations}
    return {shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim}


def mapping_issues(task: Task) -> Iterable[Issue]:
    """Yield why layers cannot be held against each other."""
    teacher, mine, objectives = _teacher(task), task.shape, task.spec.objectives
    if "Hidden" in objectives and teacher.hidden != mine.hidden:
        what = f"Hidden compares states of {teacher.hidden} and {mine.hidden} numbers"
        yield Issue(f"{task.field}.objectives", what, "write [Logits], or [Logits, Attention]")
    if "Hidden" in objectives and teacher.layers < mine.layers and not task.spec.layer_map:
        what = f"Hidden maps {mine.layers} layers to {teacher.layers} of the teacher"
        yield Issue(f"{task.field}.objectives", what, "write layerMap, or [Logits]")
    for index, (layer, of) in enumerate(_written(task)):
        for name, found, limit in (("student", layer, mine.layers), ("teacher", of, teacher.layers)):
            if found >= limit:
                what = f"found {found}, and the {name} has layers 0 to {limit - 1}"
                yield Issue(f"{task.field}.layerMap[{index}].{name}", what, "write one of those")
    if "Attention" in objectives:
        widths = sorted(relation_widths(mine) | relation_widths(teacher))
        heads = relation_heads(task)
        if any(width % heads for width in widths):
            what = f"{heads} heads do not divide {' and '.join(map(str, widths))}"
            fits = [n for n in range(1, 65) if all(width % n == 0 for width in widths)]
            yield Issue(f"{task.field}.relationHeads", what, f"write one of {', '.join(map(str, fits))}")


def _teacher(task: Task) -> ModelShape:
    return task.teacher or task.shape


def _written(task: Task) -> Pairs:
    return [(pair.student, pair.teacher) for pair in task.spec.layer_map or ()]
