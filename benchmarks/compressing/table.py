"""What was found of every row, as figures: the page and the goals read it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from leanmodel_api.datasets import DataSet
from leanmodel_api.plan import CompressResult
from leanmodel_api.report import Estimate

from . import judge
from .rows import LARGE, Row, Subject

TRIMMED = "trimmed"
"""Rows of this name have another shape on each data set; all others' is the same on both."""
DECODERS: dict[str, tuple[Subject, ...]] = {"words": ("words", "sms"), "sms": ("sms", "words")}


@dataclass(frozen=True)
class Line:
    """A row that was made.

    Attributes:
        row: which.
        made: what its Job told.
        judged: its answers.
        load: processes that waited for the machine when it began: beside others' work, seconds are an upper bound.
        foretold: its peak memory as `leanmodel estimate` says it today, bytes; None where it was not asked.
    """

    row: Row
    made: CompressResult
    judged: dict[str, Any]
    load: float
    foretold: int | None = None

    @property
    def bytes(self) -> int:
        """Bytes as they are served."""
        return self.made.bytes

    @property
    def parameters(self) -> int:
        """Parameters as they are served."""
        return self.made.parameters

    @property
    def own_steps(self) -> bool:
        """Whether there are steps that compress: the large model itself has none."""
        return bool(self.row.steps)

    @property
    def seconds(self) -> float:
        """Seconds of all steps, those that another row had done counted as they were then."""
        return sum(step.seconds for step in self.made.steps)

    @property
    def peak(self) -> int:
        """Largest anonymous memory of all steps, bytes."""
        return int(max((step.figures.get("peakAnonymousBytes", 0.0) for step in self.made.steps), default=0))

    @property
    def estimated(self) -> int:
        """The largest of what is estimated for its steps, bytes: by the code of today where it was asked."""
        return self.foretold or max((step.estimated_memory_bytes for step in self.made.steps), default=0)


@dataclass
class Found:
    """Everything that was found, by the rows' names.

    Attributes:
        rows: all rows in order.
        lines: those that were made.
        errors: the words of those that failed.
        speeds: a row's speed by the large one's, from one run.
        rates: a row's own speed, tokens/s or requests/s.
        data: the data sets of the subjects that have choices.
        baselines: what trivial models answer to the same messages, by subject and name.
    """

    rows: list[Row]
    lines: dict[str, Line] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    speeds: dict[str, Estimate] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    data: dict[str, DataSet] = field(default_factory=dict)
    baselines: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def large(self, row: str) -> Line | None:
        """Return the line of a row's large model."""
        return self.lines.get(f"{row.partition('/')[0]}/{LARGE}")

    def perplexity(self, row: str) -> Estimate | None:
        """Return a row's perplexity, None where it is not made."""
        line = self.lines.get(row)
        return None if line is None else judge.perplexity(line.judged)

    def ratio(self, row: str) -> Estimate | None:
        """Return a row's perplexity by the large one's, on the same windows."""
        line, large = self.lines.get(row), self.large(row)
        return None if line is None or large is None else judge.perplexity_ratio(line.judged, large.judged)

    def figures(self, row: str) -> dict[str, Estimate]:
        """Return a row's metrics on the messages."""
        line = self.lines.get(row)
        return {} if line is None else judge.choices(line.judged, self.data[line.row.subject])

    def kept(self, row: str, metric: str) -> Estimate | None:
        """Return the share of the large one's metric that a row keeps."""
        line, large = self.lines.get(row), self.large(row)
        if line is None or large is None:
            return None
        return judge.kept(line.judged, large.judged, self.data[line.row.subject], metric)

    def speed(self, row: str) -> Estimate | None:
        """Return a row's speed by the large one's; that of a row of the same shape where it was not timed itself."""
        own = next((one for one in self.rows if one.id == row), None)
        if own is None or own.name == LARGE or own.like == LARGE:
            return None
        names = [own.name, own.like] if own.like else [own.name]
        subjects = [own.subject] if own.subject == "labels" or TRIMMED in own.name else DECODERS[own.subject]
        found = (self.speeds.get(f"{subject}/{name}") for subject in subjects for name in names)
        return next((speed for speed in found if speed is not None), None)
