"""Worlds of which everything is known: requests with the chance that either model answers each rightly.

A population is a table of requests and their expected qualities. A draw takes requests of it by lot, with replacement,
and lets both models answer anew; whether a policy keeps its promise is then computed over the whole population.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from leanmodel_api.policy import Record
from leanmodel_routing.table import Table

Floats = NDArray[np.float64]
POPULATION = 8_000


@dataclass(frozen=True)
class World:
    """A population.

    Attributes:
        table: its requests, as records with one answer each.
        lean: expected quality of the lean model's answer to each.
        large: of the large model's.
        draws: how many records a calibration gets.
        spread: concentration of graded qualities around their expectation; 0: an answer is right or wrong.
        grouped: whether the promise is made to each group.
    """

    table: Table
    lean: Floats
    large: Floats
    draws: int = 1_500
    spread: float = 0.0
    grouped: bool = False

    def draw(self, rng: np.random.Generator) -> Table:
        """Return as many records as a calibration gets, answered anew."""
        index = rng.integers(len(self.table), size=self.draws)
        return replace(
            self.table.take(index),
            lean=self._answered(self.lean[index], rng),
            large=self._answered(self.large[index], rng),
        )

    def truth(self, accept: NDArray[np.bool_], of: NDArray[np.bool_] | None = None) -> tuple[float, float]:
        """Return the expected quality of the routed pair and of the large model, over all or some requests."""
        mass = self.table.mass if of is None else of / of.sum()
        return float(mass @ np.where(accept, self.lean, self.large)), float(mass @ self.large)

    def _answered(self, expected: Floats, rng: np.random.Generator) -> Floats:
        if not self.spread:
            return (rng.random(len(expected)) < expected).astype(np.float64)
        found: Floats = rng.beta(self.spread * expected + 1e-6, self.spread * (1 - expected) + 1e-6)
        return found


def _population(
    lean: Floats,
    large: Floats,
    logprobs: Floats,
    *,
    classes: list[str] | None = None,
    groups: list[str] | None = None,
) -> Table:
    records = [
        Record(
            prompt=f"request {index}", lean_quality=0.0, large_quality=0.0, lean_cost=0.001, large_cost=0.01,
            lean_logprobs=tuple(logprobs[index].tolist()), stratum=classes[index] if classes else None,
            group=groups[index] if groups else None,
        )
        for index in range(len(lean))
    ]  # fmt: skip
    return Table.of(records, "balanced" if classes else "mean")


def _sure(chance: Floats, rng: np.random.Generator, noise: float = 0.8) -> Floats:
    """Return three log-probs [n, 3] that tell something of a chance, not all."""
    logit = np.log(np.clip(chance, 1e-3, 1 - 1e-3)) - np.log(np.clip(1 - chance, 1e-3, 1 - 1e-3))
    seen = 0.7 * logit[:, None] + rng.normal(0, noise, (len(chance), 3))
    return np.minimum(-np.log1p(np.exp(-seen)), -1e-6)


def _chances(
    rng: np.random.Generator, lean_ease: float = 1.1, large_ease: float = 2.6
) -> tuple[Floats, Floats]:
    ease = rng.normal(0.8, 1.4, POPULATION)
    return 1 / (1 + np.exp(-(1.5 * ease + lean_ease))), 1 / (1 + np.exp(-(0.8 * ease + large_ease)))


def telling(rng: np.random.Generator) -> World:
    """Log-probs tell a good deal of whether the lean answer is right."""
    lean, large = _chances(rng)
    return World(_population(lean, large, _sure(lean, rng)), lean, large)


def tiny(rng: np.random.Generator) -> World:
    """As `telling`, with 150 records in all."""
    return replace(telling(rng), draws=150)


def rare_class(rng: np.random.Generator) -> World:
    """As `telling`, judged by balanced accuracy with a class of 15%."""
    lean, large = _chances(rng)
    classes = np.where(rng.random(POPULATION) < 0.15, "rare", "common").tolist()
    return World(_population(lean, large, _sure(lean, rng), classes=classes), lean, large)


def blind(rng: np.random.Generator) -> World:
    """Log-probs tell nothing."""
    lean, large = np.full(POPULATION, 0.85), np.full(POPULATION, 0.95)
    return World(_population(lean, large, _sure(rng.random(POPULATION), rng)), lean, large)


def confidently_wrong(rng: np.random.Generator) -> World:
    """One request in fifteen is answered wrongly and with the surest log-probs of all."""
    lean, large = _chances(rng)
    trap = rng.random(POPULATION) < 1 / 15
    seen = _sure(np.where(trap, 0.999, lean), rng, noise=0.3)
    lean = np.where(trap, 0.05, lean)
    return World(_population(lean, large, seen), lean, large)


def ties(rng: np.random.Generator) -> World:
    """Log-probs take four values alone."""
    lean, large = _chances(rng)
    steps = np.array([-2.0, -0.7, -0.2, -0.01])
    seen = np.repeat(steps[np.digitize(lean, [0.4, 0.7, 0.9])][:, None], 3, axis=1)
    return World(_population(lean, large, seen), lean, large)


def all_right(rng: np.random.Generator) -> World:
    """Both models are always right."""
    ones = np.ones(POPULATION)
    return World(_population(ones, ones, _sure(rng.random(POPULATION), rng)), ones, ones)


def all_wrong(rng: np.random.Generator) -> World:
    """Neither model is ever right: nothing can be broken."""
    zeros = np.zeros(POPULATION)
    return World(_population(zeros, zeros, _sure(rng.random(POPULATION), rng)), zeros, zeros)


def lean_better(rng: np.random.Generator) -> World:
    """The lean model is the better one."""
    large, lean = _chances(rng)
    return World(_population(lean, large, _sure(lean, rng)), lean, large)


def graded(rng: np.random.Generator) -> World:
    """Qualities between 0 and 1, as of ROUGE: betting alone can be used."""
    lean, large = _chances(rng)
    return World(_population(lean, large, _sure(lean, rng)), lean, large, spread=4.0)


def five_groups(rng: np.random.Generator) -> World:
    """Five groups of requests, from one that the lean model masters to one that it cannot do; a promise for each."""
    which = rng.integers(5, size=POPULATION)
    _, large = _chances(rng)
    lean = np.clip(large * np.array([1.0, 0.99, 0.95, 0.85, 0.3])[which], 0, 1)
    names = [f"group {number}" for number in which]
    return World(
        _population(lean, large, _sure(lean, rng), groups=names), lean, large, draws=2_500, grouped=True
    )


def groups_of_five(rng: np.random.Generator) -> World:
    """Half of the requests are of one group, the others of 150 groups with five records each; a promise for each."""
    lean, large = _chances(rng)
    names = np.where(rng.random(POPULATION) < 0.5, "many", "")
    few = [f"few {number}" for number in rng.integers(150, size=POPULATION)]
    groups = [name or other for name, other in zip(names.tolist(), few, strict=True)]
    return World(
        _population(lean, large, _sure(lean, rng), groups=groups), lean, large, draws=1_500, grouped=True
    )


WORLDS: dict[str, Callable[[np.random.Generator], World]] = {
    made.__name__.replace("_", " "): made
    for made in (
        telling, rare_class, graded, confidently_wrong, blind, ties, tiny, lean_better, all_right, all_wrong, five_groups,
        groups_of_five,
    )
}  # fmt: skip
"""By name."""
