"""What the training steps share: data, limits, the optimiser loop with its checkpoints."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.errors import Issue
from leanmodel_api.steps import TrainingFields

from .. import checkpoint, devices
from ..batches import Row, batch_at, largest_micro, micro_batches, padded_tokens, steps_in
from ..shapes import ModelShape
from . import stopping
from .protocol import Place, StepError, Task

WARM_UP = 0.1
BETAS = (0.9, 0.98)
CLIP = 1.0
OPTIMISER_BYTES = 10.0
CHECKPOINT_BYTES = 24.0
# Rows at least: fewer say nothing about a task, and mostly mean a wrong split or file.
LEAST_ROWS = 8
# Settings that change the way, not the result: a resumed run ends bit for bit where an unkilled one does.
# Whose answers are learned is told by the rows themselves, which are part of the key.
NEUTRAL = {"answers", "checkpoint_steps", "data_set", "type"}


@dataclass
class Trained:
    """How a training ended; with early stopping, after which optimiser step the kept weights were the best."""

    steps: int
    resumed_at: int | None
    loss: float
    seconds: float
    best_at: int | None = None
    best: float | None = None

    def figures(self) -> dict[str, float]:
        """Return what a report says of it."""
        found = {"trainLoss": self.loss, "optimiserSteps": float(self.steps)}
        if self.best_at is not None and self.best is not None:
            found.update(bestStep=float(self.best_at), bestValidationLoss=self.best)
        return found

    def words(self) -> str:
        """Return the steps in words."""
        kept = "" if self.best_at is None else f" (the weights after {self.best_at} are kept)"
        return f"{self.steps} optimiser steps{kept}"


def settings(spec: TrainingFields) -> dict[str, Any]:
    """Return what enters the key."""
    return spec.model_dump(mode="json", exclude=NEUTRAL, exclude_none=True)


def chosen(task: Task) -> tuple[Row, ...]:
    """Return the train rows that the step uses: thinned by ``maxImbalance``, then the first ``maxExamples``."""
    assert task.rows is not None
    return thinned(task.rows.train, task.spec.max_imbalance)[: task.spec.max_examples]


def thinned(rows: Sequence[Row], most: int | None) -> tuple[Row, ...]:
    """Return the rows, in their order, with at most ``most`` of each answer for one of the rarest answer."""
    counts = Counter(row.ids[row.first :] for row in rows)
    if most is None or not counts:
        return tuple(rows)
    limit = most * min(counts.values())
    taken: Counter[tuple[int, ...]] = Counter()
    kept = []
    for row in rows:
        answer = row.ids[row.first :]
        taken[answer] += 1
        if taken[answer] <= limit:
            kept.append(row)
    return tuple(kept)


def total_steps(task: Task) -> int:
    """Return the optimiser steps of the whole training."""
    return steps_in(len(chosen(task)), task.spec.batch_size, number(task.spec.epochs))


def total_tokens(task: Task) -> float:
    """Return the tokens of the whole training, padding included."""
    rows = chosen(task)
    return padded_tokens(rows, task.spec.batch_size, task.seed) * epochs(task)


def total_answers(task: Task) -> float:
    """Return the answer positions of the whole training."""
    return sum(row.answers for row in chosen(task)) * epochs(task)


def epochs(task: Task) -> float:
    """Return the passes as they will be made: whole optimiser steps."""
    return total_steps(task) / pass_steps(task)


def pass_steps(task: Task) -> int:
    """Return the optimiser steps of one pass over the train rows."""
    return max(1, math.ceil(len(chosen(task)) / int(task.spec.batch_size)))


def looking_flops(task: Task, shape: ModelShape) -> float:
    """Return the operations of looking at the validation part, 0 without early stopping."""
    return stopping.flops(task, shape, total_steps(task), pass_steps(task))


def traffic(task: Task, trained: int) -> float:
    """Return the bytes that optimiser and checkpoints move, for :class:`protocol.Work`.

    Fused AdamW touches 28 bytes of a parameter in each step, but in memory alone: that takes about as long as a third
    of them at the pace of loading and saving.
    """
    each = OPTIMISER_BYTES + CHECKPOINT_BYTES / int(task.spec.checkpoint_steps)
    return each * trained * total_steps(task)


def passes(task: Task) -> int:
    """Return the micro-batches of the whole training, by those of its first batch."""
    rows = chosen(task)
    return len(micro_batches(range(min(len(rows), task.spec.batch_size)), rows)) * total_steps(task)


def micro(task: Task) -> tuple[int, int]:
    """Return the bound of (tokens, answer positions) of a micro-batch."""
    return largest_micro(chosen(task), task.spec.batch_size)


def issues(task: Task) -> list[Issue]:
    """Return what is wrong with a training step's data and numbers."""
    spec, field = task.spec, task.field
    found = stopping.issues(task)
    rows = chosen(task) if task.rows is not None else ()
    if len(rows) < LEAST_ROWS:
        found.append(
            Issue(
                f"{field}.dataSet",
                f"the train part has {len(rows)} rows with an answer, at least {LEAST_ROWS} are needed",
                "give more rows, a larger split.train, or an answer template",
            )
        )
    if number(spec.epochs) <= 0:
        found.append(Issue(f"{field}.epochs", f"{spec.epochs} is no training", "write a number above 0"))
    if not 0 < number(spec.learning_rate) < 1:
        found.append(
            Issue(
                f"{field}.learningRate", f"{spec.learning_rate} cannot be meant", "write one such as 0.0001"
            )
        )
    return found


def collate(
    rows: Sequence[Row], part: Sequence[int], pad: int, device: Any = devices.CPU
) -> tuple[Any, Any, Any, Any]:
    """Return a micro-batch.

    Rows are padded on the right, and need no mask: under causal attention no answer position sees padding.

    Args:
        rows: of which some are taken.
        part: their indices.
        pad: any token.
        device: where the tensors go: the model's.

    Returns:
        ids (rows × width), and for each answer position its row, its column and the token that is wanted.
    """
    import torch

    width = max(len(rows[index].ids) for index in part)
    ids = torch.full((len(part), width), pad, dtype=torch.long)
    where: list[int] = []
    columns: list[int] = []
    wanted: list[int] = []
    for line, index in enumerate(part):
        row = rows[index]
        ids[line, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        where += [line] * row.answers
        columns += range(row.first - 1, len(row.ids) - 1)
        wanted += row.ids[row.first :]
    made = (ids, torch.tensor(where), torch.tensor(columns), torch.tensor(wanted))
    return made[0].to(device), made[1].to(device), made[2].to(device), made[3].to(device)


def answer_logits(model: Any, ids: Any, where: Any, columns: Any) -> Any:
    """Return the logits at the answer positions alone (positions × vocabulary): the head is the dear part."""
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return head_logits(model, hidden[where, columns])


def head_logits(model: Any, hidden: Any) -> Any:
    """Return the logits of hidden states (… × hidden) in float32, as the model itself would give them."""
    import torch

    logits = model.get_output_embeddings()(hidden).float()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def learning_rate(peak: float, step: int, total: int) -> float:
    """Return the rate of optimiser step ``step`` (from 0): linear warm-up over a tenth, then linear decay."""
    warm = max(1.0, WARM_UP * total)
    return peak * min((step + 1) / warm, (total - step) / max(1.0, total - warm), 1.0)


def fit(
    task: Task,
    place: Place,
    trained: dict[str, Any],
    loss_of: Callable[[Sequence[int]], Any],
    set_training: Callable[[], None],
    offset: int = 0,
    judge: Callable[[], float] | None = None,
    after_step: Callable[[int, int, Any], None] | None = None,
) -> Trained:
    """Train until the last optimiser step, or until it is stopped early, from the last whole checkpoint on.

    Everything random is a function of (seed, step), and checkpoints hold the exact float32 state, so a
    killed and resumed training ends with the same bits as one that was left alone.

    Args:
        task: the step, its rows and settings.
        place: where checkpoints go and progress is told.
        trained: the parameters to train, by name; updated in place.
        loss_of: takes the indices of a micro-batch, returns the summed loss over its answer positions.
        set_training: puts the model into training mode.
        offset: units of progress that were done before the training.
        judge: measures the mean loss on the validation part; needed with ``earlyStopping``.
        after_step: takes the optimiser steps done, those in all and the optimiser, and may change weights and moments;
            what it decides must follow from these alone, as checkpoints hold nothing else. A resumed training calls it
            once more for the step that it resumes from.

    Raises:
        StepError: the loss or the gradient is not finite.
    """
    import torch

    spec, rows = task.spec, chosen(task)
    lengths = [len(row.ids) for row in rows]
    total, peak = total_steps(task), number(spec.learning_rate)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(list(trained.values()), lr=peak, betas=BETAS, weight_decay=0.0, fused=True)
    folder = place.scratch / "training"
    stop = stopping.stopper(task, place, trained, judge, pass_steps(task))
    start, spent, running = restore(folder, place.fingerprint, trained, optimiser, stop)
    resumed_at = start or None
    set_training()
    if start and after_step is not None:
        after_step(start, total, optimiser)
    place.progress(offset + start, offset + total, "training")
    began, done = time.monotonic(), start
    for step in range(start, total):
        torch.manual_seed(task.seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(peak, step, total)
        batch = batch_at(lengths, spec.batch_size, task.seed, step)
        positions = sum(rows[index].answers for index in batch)
        value = 0.0
        for part in micro_batches(batch, rows):
            loss = loss_of(part) / positions
            loss.backward()
            value += float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(list(trained.values()), CLIP))
        if not math.isfinite(value) or not math.isfinite(norm):
            raise StepError(
                Issue(
                    f"{task.field}.learningRate",
                    f"the loss became {value} (gradient {norm}) at optimiser step {step + 1} of {total} with "
                    f"{spec.learning_rate}",
                    f"write a smaller one, such as {peak / 10:g}",
                )
            )
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if after_step is not None:
            after_step(step + 1, total, optimiser)
        running = value if step == 0 else 0.9 * running + 0.1 * value
        done = step + 1
        place.progress(offset + done, offset + total, f"optimiser step {done}/{total}, loss {running:.4f}")
        if stop is not None and stop.due(done, total):
            if stop.look(done):
                break
            set_training()
        if done % spec.checkpoint_steps == 0 and done < total:
            state = {"fingerprint": place.fingerprint, "running": running}
            state["seconds"] = spent + time.monotonic() - began
            if stop is not None:
                state["stopping"] = stop.state()
            checkpoint.save(folder, done, checkpoint_tensors(trained, optimiser), state)
    for parameter in trained.values():
        parameter.requires_grad_(False)
    found = Trained(done, resumed_at, running, spent + time.monotonic() - began)
    if stop is not None:
        stop.put_back()
        found.best_at, found.best = stop.best_at, stop.best
        place.progress(offset + total, offset + total, f"kept optimiser step {stop.best_at}")
    return found


def restore(
    folder: Any,
    fingerprint: str,
    trained: dict[str, Any],
    optimiser: Any,
    stop: stopping.Stopper | None = None,
) -> tuple[int, float, float]:
    """Put the last whole checkpoint back into parameters, optimiser, and what stops the training early.

    Returns:
        The optimiser step to go on with, seconds spent before, and the running loss; zeros without one.
    """
    import torch

    found = checkpoint.latest(folder)
    if found is None or found.state.get("fingerprint") != fingerprint:
        return 0, 0.0, 0.0
    tensors = found.tensors()
    if {name.partition("/")[2] for name in tensors if name.startswith("weight/")} != set(trained):
        return 0, 0.0, 0.0
    if stop is not None and not stop.take(found.state.get("stopping")):
        return 0, 0.0, 0.0
    for name, parameter in trained.items():
        parameter.data.copy_(tensors.pop(f"weight/{name}"))
        optimiser.state[parameter] = {
            "step": torch.tensor(float(found.at)).to(parameter.device),
            "exp_avg": tensors.pop(f"mean/{name}").to(parameter.device),
            "exp_avg_sq": tensors.pop(f"square/{name}").to(parameter.device),
        }
    return found.at, float(found.state["seconds"]), float(found.state["running"])


def checkpoint_tensors(trained: dict[str, Any], optimiser: Any) -> dict[str, Any]:
    """Return what a checkpoint holds: the trained weights and AdamW's two moments, all float32."""
    tensors = {}
    for name, parameter in trained.items():
        state = optimiser.state[parameter]
        tensors[f"weight/{name}"] = parameter.detach()
        tensors[f"mean/{name}"] = state["exp_avg"]
        tensors[f"square/{name}"] = state["exp_avg_sq"]
    return tensors
