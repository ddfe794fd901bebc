"""Synthetic records whose truth is known: each has a chance of being answered rightly by either model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from leanmodel_api.policy import Record
from leanmodel_routing.table import Table


@dataclass(frozen=True)
class Pool:
    """A population: the records' columns, and the chances that the lean and the large model answer rightly."""

    table: Table
    lean_chance: np.ndarray
    large_chance: np.ndarray

    def draw(self, n, rng):
        """n records with fresh answers, drawn without replacement."""
        index = rng.choice(len(self.table), size=n, replace=False)
        return replace(
            self.table.take(index),
            lean=(rng.random(n) < self.lean_chance[index]).astype(float),
            large=(rng.random(n) < self.large_chance[index]).astype(float),
        )

    def true_quality(self, accept):
        """Expected quality of the pair and of the large model, for an accept mask over the pool."""
        if self.table.aggregate == "balanced":
            mass = self.table.mass
        else:
            mass = np.full(len(self.table), 1 / len(self.table))
        return float(mass @ np.where(accept, self.lean_chance, self.large_chance)), float(
            mass @ self.large_chance
        )


def make_pool(n, seed=0, *, lean_ease=1.1, large_ease=2.6, spam=None):
    """n records whose lean log-probs tell something, not all, of how easy they are; `spam`: share of a rare class."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0.8, 1.4, n)
    lean = 1 / (1 + np.exp(-(1.5 * ease + lean_ease)))
    large = 1 / (1 + np.exp(-(0.8 * ease + large_ease)))
    sure = 1 / (1 + np.exp(-(1.2 * ease[:, None] + 1.0 + rng.normal(0, 0.8, (n, 3)))))
    logprobs = np.log(sure)
    label = ["ham"] * n if spam is None else np.where(rng.random(n) < spam, "spam", "ham").tolist()
    records = [
        Record(
            prompt=f"question {index}",
            lean_quality=float(rng.random() < lean[index]),
            large_quality=float(rng.random() < large[index]),
            lean_logprobs=tuple(logprobs[index].tolist()),
            lean_cost=0.001,
            large_cost=0.01,
            stratum=label[index],
        )
        for index in range(n)
    ]
    return Pool(Table.of(records, "mean" if spam is None else "balanced"), lean, large)


def make_records(n, seed=0, **options):
    """n such records."""
    return list(make_pool(n, seed, **options).table.records)
