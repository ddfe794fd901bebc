"""Records as columns: what the arithmetic works on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmodel_api.errors import InputError, one
from leanmodel_api.policy import Aggregate, Record
from leanmodel_routing.observation import Observation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """n records as columns of length n.

    `lean`, `large`: qualities. `weight`: the records' weights (1 where none). `stratum`: code of the class,
    all 0 where the aggregate is `mean`. `lean_cost`, `large_cost`: dollars, and `lean_latency`, `large_latency`:
    seconds, NaN where unknown. `read`: features already read off the observations,
    by signal, so that no signal is read twice.
    """

    records: tuple[Record, ...]
    aggregate: Aggregate
    lean: Floats
    large: Floats
    weight: Floats
    stratum: Ints
    strata: tuple[str, ...]
    lean_cost: Floats
    large_cost: Floats
    lean_latency: Floats
    large_latency: Floats
    observations: tuple[Observation, ...]
    read: dict[str, Floats] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls, records: Sequence[Record], aggregate: Aggregate = "mean", hold_back: int | None = None
    ) -> Table:
        """Columns of the records.

        `hold_back`: tokens of an answer that the decision will read; None: all of them. Raises InputError where there is no record, or where the aggregate is `balanced` and a record has no
        stratum.
        """
        if not records:
            raise one(InputError, "records", "found none", "give at least one record")
        names = ["" if aggregate == "mean" else record.stratum for record in records]
        for index, name in enumerate(names):
            if name is None:
                raise one(
                    InputError,
                    f"records[{index}].stratum",
                    "missing, but the aggregate is balanced",
                    "give the class label of the reference, or use the aggregate mean",
                )
        strata = tuple(sorted({str(name) for name in names}))
        codes = {name: code for code, name in enumerate(strata)}
        return cls(
            records=tuple(records),
            aggregate=aggregate,
            lean=np.array([record.lean_quality for record in records], dtype=np.float64),
            large=np.array([record.large_quality for record in records], dtype=np.float64),
            weight=np.array(
                [1.0 if record.weight is None or aggregate != "mean" else record.weight for record in records]
            ),
            stratum=np.array([codes[str(name)] for name in names], dtype=np.int64),
            strata=strata,
            lean_cost=np.array([_or_nan(record.lean_cost) for record in records]),
            large_cost=np.array([_or_nan(record.large_cost) for record in records]),
            lean_latency=np.array([_or_nan(record.lean_latency) for record in records]),
            large_latency=np.array([_or_nan(record.large_latency) for record in records]),
            observations=tuple(Observation.of(record).first(hold_back) for record in records),
        )

    def __len__(self) -> int:
        """Number of records."""
        return len(self.lean)

    def take(self, index: Ints) -> Table:
        """The rows at `index`, in that order."""
        rows = index.tolist()
        return Table(
            records=tuple(self.records[row] for row in rows),
            aggregate=self.aggregate,
            lean=self.lean[index],
            large=self.large[index],
            weight=self.weight[index],
            stratum=self.stratum[index],
            strata=self.strata,
            lean_cost=self.lean_cost[index],
            large_cost=self.large_cost[index],
            lean_latency=self.lean_latency[index],
            large_latency=self.large_latency[index],
            observations=tuple(self.observations[row] for row in rows),
            read={key: values[index] for key, values in self.read.items()},
        )

    @cached_property
    def mass(self) -> Floats:
        """Share of each record in the aggregated mean; sums to 1.

        Balanced: each class has the same mass, spread evenly over its records.
        """
        if self.aggregate == "balanced":
            counts = np.bincount(self.stratum, minlength=len(self.strata)).astype(np.float64)
            return 1.0 / (counts[self.stratum] * np.count_nonzero(counts))
        found: Floats = self.weight / self.weight.sum()
        return found

    @cached_property
    def canonical(self) -> Ints:
        """Rows [n] in an order that says nothing of how the records came: by what they are."""
        keys = [
            (record.prompt_text, record.stratum or "", record.group or "", lean, large)
            for record, lean, large in zip(self.records, self.lean.tolist(), self.large.tolist(), strict=True)
        ]
        return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)

    @cached_property
    def groups(self) -> dict[str, Ints]:
        """Rows of each group, by its name; records without a group are in none."""
        rows: dict[str, list[int]] = {}
        for row, record in enumerate(self.records):
            if record.group is not None:
                rows.setdefault(record.group, []).append(row)
        return {name: np.array(found, dtype=np.int64) for name, found in rows.items()}

    @property
    def costs_known(self) -> bool:
        """Whether every record carries both costs."""
        return not bool(np.isnan(self.lean_cost).any() or np.isnan(self.large_cost).any())

    @property
    def latencies_known(self) -> bool:
        """Whether every record carries both latencies."""
        return not bool(np.isnan(self.lean_latency).any() or np.isnan(self.large_latency).any())


def data_digest(records: Sequence[Record]) -> str:
    """sha256 over the records in the order of their own digests: the same set in any order has the same
    digest.
    """
    lines = sorted(
        hashlib.sha256(json.dumps(_content(record), sort_keys=True).encode()).hexdigest()
        for record in records
    )
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _content(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json", include=set(Record.model_fields), exclude_none=True)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
