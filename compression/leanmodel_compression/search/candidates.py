"""Which recipes a search tries: made from the model's shape and the budget alone. Pure; no weights are read.

A recipe is a start (nothing; fewer layers, fewer neurons, and distilled again; thin layers, and healed) and an end (a
smaller vocabulary, fewer bits, an export). Recipes with the same start share its training through the store. Whatever a
step refuses on this model, needs more memory than the Job has, or leaves above the budget is never run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from leanmodel_api.base import fmt, number
from leanmodel_api.search import Search
from leanmodel_api.steps import Distill, Export, Factorize, Heal, Linear, Prune, Quantize, Step, Trim

from .. import checks
from ..checks import Planned
from ..classifiers.shapes import EncoderShape
from ..shapes import ModelShape
from ..steps.protocol import Task
from ..steps.quantize import stored_bytes
from .footprint import Device

SHARES = (5 / 6, 2 / 3, 1 / 2, 5 / 12, 1 / 3, 1 / 4, 1 / 5, 1 / 7, 1 / 10)
"""Of the layers: what stays."""
NARROWED = ("0.25", "0.5")
"""Of the neurons: what goes."""
THINNED = "0.3"
"""Of each layer's parameters: what low rank takes."""
FEW_BITS = 0.8
"""What a parameter of 4 bits counts, where recipes are chosen among: rounding to so few costs about as much quality."""
CALIBRATED = 64
"""Rows that GPTQ sees; it costs time and is no part of the halving."""

Chain = Callable[[Sequence[Step]], list[tuple[Planned, Task]]]
"""From steps to them with their tasks, on the large model."""


@dataclass(frozen=True)
class Candidate:
    """A recipe.

    Attributes:
        name: its steps in short, such as ``depth-10-w8a8``.
        steps: trained to the end.
        bytes: as estimated, stored for serving.
        trains: whether a rung changes it; a recipe without training is whole from the first rung on.
        memory: of a replica in bytes, as estimated; None where no device is named.
        body: parameters outside of the token table, those of 4 bits at a discount: what it keeps of the model, about.
    """

    name: str
    steps: tuple[Step, ...]
    bytes: int
    trains: bool
    body: float = 0.0
    memory: int | None = None

    def at(self, share: float) -> list[Step]:
        """Return the steps with a share of the training."""
        return [shortened(step, share) for step in self.steps]


@dataclass(frozen=True)
class Proposal:
    """What a search has to choose from.

    Attributes:
        candidates: from the fewest bytes to the most, all within the budget.
        considered: recipes that the model's shape allows.
        over: of them, those above the budget.
        smallest: bytes of the smallest recipe of all; None where there is none.
        least: memory of the replica that takes least; None where no device is named.
        device: memory that a replica may take; None likewise.
    """

    candidates: tuple[Candidate, ...]
    considered: int
    over: int
    smallest: int | None
    least: int | None = None
    device: int | None = None


def propose(
    shape: ModelShape, search: Search, budget: int, limit: int, chain: Chain, classifier: bool, device: Device | None = None,
) -> Proposal:  # fmt: skip
    """Return the recipes within the budget, at most ``maxCandidates``, spread over their bytes.

    Args:
        shape: of the large model.
        search: the manifest's.
        budget: bytes at most.
        limit: memory of the Job in bytes.
        chain: tells what each step would see.
        classifier: whether the task is text-classification, else text-generation.
        device: where a replica must fit; None where it may take any memory.
    """
    found: list[Candidate] = []
    for name, steps in classifiers(shape, search) if classifier else generators(shape, search):
        tasks = chain(steps)
        if checks.task_issues(tasks) or any(item.step.memory(task) > limit for item, task in tasks):
            continue
        if device is not None and not device.serves(tasks):
            continue
        memory = device.replica(tasks) if device is not None else None
        trains = any(isinstance(step, Distill | Heal) for step in steps)
        found.append(Candidate(name, tuple(steps), served_bytes(tasks), trains, body_of(tasks), memory))
    found.sort(key=lambda one: (one.bytes, one.name))
    room = device.memory if device is not None else None
    inside = [one for one in found if one.bytes <= budget and (room is None or (one.memory or 0) <= room)]
    return Proposal(
        candidates=tuple(spread(inside, search.max_candidates)),
        considered=len(found),
        over=len(found) - len(inside),
        smallest=found[0].bytes if found else None,
        least=min((one.memory for one in found if one.memory is not None), default=None),
        device=room,
    )


def spread(found: Sequence[Candidate], most: int) -> list[Candidate]:
    """Return at most so many: the smallest, and of as many stretches of the order the one that keeps most of the model.

    Of two recipes with about the same bytes the one with fewer bits and more layers is the likelier to pass.

    Args:
        found: from the fewest bytes to the most.
        most: how many may stay.
    """
    if len(found) <= most:
        return list(found)
    first, rest = (list(found[:1]), found[1:]) if most > 1 else ([], found)
    ends = [round(at * len(rest) / (most - len(first))) for at in range(most - len(first) + 1)]
    stretches = [rest[begin:end] for begin, end in pairwise(ends)]
    return first + [max(stretch, key=lambda one: (one.body, -one.bytes)) for stretch in stretches]


def body_of(tasks: Sequence[tuple[Planned, Task]]) -> float:
    """Return a candidate's body, from its last step."""
    item, task = tasks[-1]
    after = item.step.after(task)
    kept = after.parameters - after.embedding_parameters
    return FEW_BITS * kept if getattr(item.spec, "scheme", "") == "W4A16" else float(kept)


def generators(shape: ModelShape, search: Search) -> Iterator[tuple[str, list[Step]]]:
    """Yield recipes of a decoder: every start with every end."""
    data, training = search.training.data_set, _training(search)
    ends: list[tuple[str, list[Step]]] = [
        ("", []),
        ("w8a8", [Quantize(type="Quantize", scheme="W8A8")]),
        ("w4a16", [Quantize(type="Quantize", scheme="W4A16", algorithm="GPTQ", samples=CALIBRATED,
                            max_length=search.training.max_length, data_set=data)]),
        ("trim", [Trim(type="Trim", data_set=data)]),
        ("trim-w8a8", [Trim(type="Trim", data_set=data), Quantize(type="Quantize", scheme="W8A8")]),
        ("trim-w8a8-table", [Trim(type="Trim", data_set=data),
                             Quantize(type="Quantize", scheme="W8A8", embeddings="Int8")]),
    ]  # fmt: skip
    starts: list[tuple[str, list[Step]]] = [("", [])]
    for keep in kept(shape.layers):
        cut = Prune(type="Prune", method="Depth", keep_layers=keep, selection="First")
        starts.append((f"depth-{keep}", [cut, Distill(type="Distill", **training)]))
    for ratio in NARROWED:
        narrow = Prune(
            type="Prune", method="Neurons", ratio=ratio, data_set=data, max_length=search.training.max_length
        )
        starts.append((f"neurons-{ratio}", [narrow, Distill(type="Distill", **training)]))
    thin = Factorize(type="Factorize", ratio=THINNED, data_set=data, max_length=search.training.max_length)
    for name, steps in starts:
        for end, more in ends:
            if steps or more:
                yield _name(name, end), [*steps, *more]
    yield f"rank-{THINNED}", [thin, Heal(type="Heal", **training)]


def classifiers(shape: ModelShape, search: Search) -> Iterator[tuple[str, list[Step]]]:
    """Yield recipes of an encoder, and the linear model, which is one where it keeps the promise."""
    int8 = Export(type="Export", precision="Int8")
    ends: list[tuple[str, list[Step]]] = [
        ("float32", [Export(type="Export")]),
        ("int8", [int8]),
        ("trim-int8", [Trim(type="Trim", data_set=search.training.data_set), int8]),
    ]
    starts: list[tuple[str, list[Step]]] = [("", [])]
    for keep in kept(shape.layers):
        cut = Prune(type="Prune", method="Depth", keep_layers=keep, selection="Alternate")
        taught = Distill(type="Distill", objectives=["Logits", "Hidden"], **_training(search))
        starts.append((f"depth-{keep}", [cut, taught]))
    yield "linear", [Linear(type="Linear", data_set=search.training.data_set)]
    for name, steps in starts:
        for end, more in ends:
            if name or end != "float32":  # the large model itself is no lean one
                yield _name(name, end), [*steps, *more]


def kept(layers: int) -> list[int]:
    """Return how many layers a recipe keeps, the most first; without layers that are fewer than one, or all."""
    counts = {math.ceil(share * layers) for share in SHARES}
    return sorted((count for count in counts if 1 <= count < layers), reverse=True)


def served_bytes(tasks: Sequence[tuple[Planned, Task]]) -> int:
    """Return the bytes of what steps make, as it is served: float32, 8 or 4 bits, or bf16."""
    item, task = tasks[-1]
    after = item.step.after(task)
    if after.quantised and item.spec is not None:
        return stored_bytes(task)
    return stored(item, after)


def stored(item: Planned, after: ModelShape) -> int:
    """Return the bytes of what a step makes, as it is served: an encoder's float32 or 8 bits, a decoder's bf16."""
    if not isinstance(after, EncoderShape):
        return 2 * after.parameters
    return (1 if getattr(item.spec, "precision", "") == "Int8" else 4) * after.parameters


def shortened(step: Step, share: float) -> Step:
    """Return a step with a share of its training; any other as it is."""
    if share >= 1 or not isinstance(step, Distill | Heal):
        return step
    return step.model_copy(update={"epochs": fmt(number(step.epochs) * share, 9)})


def _training(search: Search) -> dict[str, Any]:
    return {name: getattr(search.training, name) for name in search.training.model_fields_set}


def _name(*words: str) -> str:
    return "-".join(_plain(words))


def _plain(words: Iterable[str]) -> Iterator[str]:
    yield from (word for word in words if word)
