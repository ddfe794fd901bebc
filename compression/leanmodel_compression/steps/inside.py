"""A decoder's hidden states and token relations beside the frozen teacher's: Distill's objectives Hidden and Attention.

As for encoders (see :mod:`.relations`), but a token relates to those before it alone, and a row counts as often as it has
answer tokens, which is what the rest of the loss is counted by. Queries and keys are taken before their positions are
turned into them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from leanmodel_api.base import number

from .. import devices, hf, memory
from ..batches import Row
from ..shapes import ModelShape
from . import training
from .mapped import attention_pairs, hidden_pairs, relation_heads
from .protocol import Place, Task
from .relations import Heard, hidden_loss, relation_bytes, relation_loss


def looks(task: Task) -> bool:
    """Say whether a step matches what lies inside."""
    return bool({"Hidden", "Attention"} & set(getattr(task.spec, "objectives", ())))


def held_bytes(task: Task) -> int:
    """Return what is held beside the student's training: the teacher, its pass, and what is compared."""
    teacher = task.teacher or task.shape
    tokens, answers = training.micro(task)
    found = memory.weights_bytes(teacher) + memory.activation_bytes(teacher, tokens, 1)
    found += memory.logits_bytes(teacher, answers, 2)
    # The teacher's, and the student's with their gradients.
    states = memory.FLOAT * tokens * teacher.hidden * (teacher.layers + 1)
    states += 2 * memory.FLOAT * tokens * task.shape.hidden * (task.shape.layers + 1)
    found += states if "Hidden" in task.spec.objectives else 0
    if "Attention" in task.spec.objectives:
        longest = max((len(row.ids) for row in training.chosen(task)), default=1)
        pairs = len(attention_pairs(task))
        found += relation_bytes(tokens, longest, relation_heads(task), pairs, teacher)
    return found


class Inside:
    """Both models' passes over a micro-batch, and the loss of what is matched inside."""

    def __init__(self, task: Task, student: Any, place: Place) -> None:
        """Load the teacher, and listen to both models' attention where it is matched."""
        spec = task.spec
        assert place.teacher is not None
        self._student, self._teacher = student, hf.load_model(place.teacher, device=devices.teacher())
        self._hidden = number(spec.hidden_weight or "1") if "Hidden" in spec.objectives else 0.0
        self._attention = number(spec.attention_weight or "1") if "Attention" in spec.objectives else 0.0
        self._states, self._relations = hidden_pairs(task), attention_pairs(task)
        self._heads = relation_heads(task)
        if self._attention:
            teacher = task.teacher or task.shape
            self._mine = DecoderRecorder(student, task.shape, {one for one, _ in self._relations})
            self._theirs = DecoderRecorder(self._teacher, teacher, {other for _, other in self._relations})

    def both(self, ids: Any) -> tuple[Any, Any]:
        """Return the student's and the teacher's outputs of a micro-batch (rows × width), both on the student's device."""
        import torch

        how = {"use_cache": False, "output_hidden_states": self._hidden > 0}
        with torch.no_grad():
            told = devices.asked(self._teacher.base_model, {"input_ids": ids}, **how)
        return self._student.base_model(input_ids=ids, **how), told

    def told(self, outputs: Any, where: Any, columns: Any) -> Any:
        """Return the teacher's logits at answer positions."""
        import torch

        with torch.no_grad():
            states = outputs.last_hidden_state[where, columns].to(devices.of(self._teacher))
            return training.head_logits(self._teacher, states)

    def between(self, mine: Any, told: Any, rows: Sequence[Row], part: Sequence[int]) -> Any:
        """Return the loss of what lies inside, summed over answer positions."""
        seen, weight = causal(rows, part, mine.last_hidden_state)
        loss: Any = 0.0
        if self._hidden:
            apart = hidden_loss(mine.hidden_states, told.hidden_states, weight, self._states)
            loss = loss + self._hidden * apart
        if self._attention:
            one, other = self._mine.take(), self._theirs.take()
            ours = [one[layer] for layer, _ in self._relations]
            # The teacher's may come from another device.
            theirs = [tuple(part.to(weight.device) for part in other[layer]) for _, layer in self._relations]
            loss = loss + self._attention * relation_loss(ours, theirs, seen, weight, self._heads)
        return loss


def causal(rows: Sequence[Row], part: Sequence[int], states: Any) -> tuple[Any, Any]:
    """Return which tokens each token relates to (rows × width × width), and the weights of tokens (rows × width).

    Args:
        rows: all of them.
        part: indices of the micro-batch's.
        states: its hidden states, for their width and device.
    """
    import torch

    width = states.shape[1]
    lengths = torch.tensor([[len(rows[index].ids)] for index in part], device=states.device)
    answers = torch.tensor([[rows[index].answers] for index in part], device=states.device)
    real = torch.arange(width, device=states.device)[None] < lengths
    before = torch.ones(width, width, dtype=torch.bool, device=states.device).tril()
    # What stands behind the end relates to itself, so that no row of the comparison is empty; it weighs nothing.
    return before[None].expand(len(part), -1, -1), real * answers / lengths


class DecoderRecorder(Heard):
    """What a decoder's projections give: three modules, or one whose output is queries, keys and values side by side."""

    def __init__(self, model: Any, shape: ModelShape, layers: Collection[int]) -> None:
        """Listen to the model from now on."""
        super().__init__(layers)
        heads = {"queries": shape.heads * shape.head_dim, "keys": shape.kv_heads * shape.head_dim}
        named, first, listened = dict(model.named_modules()), 0, set[int]()
        for projection in shape.decoder.projections:
            if not heads.keys() & set(projection.writes):
                continue
            widths = [heads[part] for part in projection.writes]
            for index in range(shape.layers):
                module = named[f"{shape.decoder.layer(index)}.{projection.name}"]
                if id(module) not in listened:
                    listened.add(id(module))
                    module.register_forward_hook(self._hook(first, widths))
            first += len(widths)

    def _hook(self, first: int, widths: Sequence[int]) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            self.keep(first, lambda: output.split(widths, dim=-1))

        return hook
