"""What was found of every row, as figures: the page and the goals read it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leanmodel_api.report import Estimate

from .rows import LARGE, Row, Subject

TRIMMED = "trimmed"
"""Rows of this name have another shape on each data set; all others' is the same on both."""
DECODERS: dict[str, tuple[Subject, ...]] = {"words": ("words", "sms"), "sms": ("sms", "words")}


@dataclass(frozen=True)
class Line:
    """A row that was made.

    Attributes:
        row: which.
        date: when, ISO 8601.
        bytes: as they are served.
        parameters: as they are served.
        seconds: of all steps, those that another row had done counted as they were then.
        peak: largest anonymous memory of all steps, bytes.
        estimated: the largest of what is estimated for its steps, bytes.
        busy: whether others were at work when it began: its seconds are then an upper bound.
        figures: of its quality, by name: of words ``perplexity`` and ``ratio``, of messages metrics and ``kept`` metrics.
    """

    row: Row
    date: str
    bytes: int
    parameters: int
    seconds: float
    peak: int
    estimated: int
    busy: bool
    figures: Mapping[str, Estimate]

    @property
    def own_steps(self) -> bool:
        """Whether there are steps that compress: the large model itself has none."""
        return bool(self.row.steps)


@dataclass
class Found:
    """Everything that was found, by the rows' names.

    Attributes:
        rows: all rows in order.
        lines: those that were made.
        errors: the words of those that failed.
        speeds: a row's speed by the large one's, from one run.
        rates: a row's own speed, tokens/s or requests/s.
        baselines: what trivial models reach on the same messages, by subject and name.
        direct: lines of the phase `llmcompressor`.
    """

    rows: list[Row]
    lines: dict[str, Line] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    speeds: dict[str, Estimate] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)
    direct: dict[str, dict[str, Any]] = field(default_factory=dict)

    def large(self, row: str) -> Line | None:
        """Return the line of a row's large model."""
        return self.lines.get(f"{row.partition('/')[0]}/{LARGE}")

    def perplexity(self, row: str) -> Estimate | None:
        """Return a row's perplexity, None where it is not made."""
        return self.figures(row).get("perplexity")

    def ratio(self, row: str) -> Estimate | None:
        """Return a row's perplexity by the large one's, on the same windows."""
        return self.figures(row).get("ratio")

    def figures(self, row: str) -> Mapping[str, Estimate]:
        """Return the figures of a row's quality; none where it is not made."""
        line = self.lines.get(row)
        return {} if line is None else line.figures

    def kept(self, row: str, metric: str) -> Estimate | None:
        """Return the share of the large one's metric that a row keeps."""
        return self.figures(row).get(f"kept {metric}")

    def speed(self, row: str) -> Estimate | None:
        """Return a row's speed by the large one's; that of a row of the same shape where it was not timed itself."""
        own = next((one for one in self.rows if one.id == row), None)
        if own is None or own.name == LARGE or own.like == LARGE:
            return None
        names = [own.name, own.like] if own.like else [own.name]
        subjects = [own.subject] if own.subject == "labels" or TRIMMED in own.name else DECODERS[own.subject]
        found = (self.speeds.get(f"{subject}/{name}") for subject in subjects for name in names)
        return next((speed for speed in found if speed is not None), None)
