"""Small charts as inline SVG: they take their colours from the page, so they follow light and dark.

Every chart has a title and a description for screen readers, and every mark a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 680, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 20, 52
LINE = 15


@dataclass(frozen=True)
class Mark:
    """A named point.

    Attributes:
        style: CSS class that colours it: large, lean, pair, other.
        shape: circle, square, diamond or ring.
        span: ends of its interval on the y axis, or None.
        tip: tooltip.
    """

    x: float
    y: float
    label: str
    style: str = "other"
    shape: str = "circle"
    span: tuple[float, float] | None = None
    tip: str = ""


@dataclass
class Chart:
    """A chart of lines and named points on linear axes.

    Attributes:
        x_format, y_format: make tick labels of values.
    """

    title: str
    description: str
    x_label: str
    y_label: str
    x_format: Callable[[float], str]
    y_format: Callable[[float], str]
    marks: list[Mark] = field(default_factory=list)
    lines: list[tuple[Sequence[tuple[float, float]], str]] = field(default_factory=list)
    level: tuple[float, str] | None = None

    def svg(self) -> str:
        """Return the chart as an ``svg`` element; an empty text without a point."""
        xs = [mark.x for mark in self.marks] + [x for line, _ in self.lines for x, _ in line]
        ys = [mark.y for mark in self.marks] + [y for line, _ in self.lines for _, y in line]
        if not xs:
            return ""
        if self.level:
            ys.append(self.level[0])
        self._x = scale(xs)
        self._y = scale(ys)
        body = [*self._axes(), *(self._line(points, style) for points, style in self.lines)]
        if self.level:
            y = self._py(self.level[0])
            body.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            body.append(text(WIDTH - RIGHT - 4, y - 5, self.level[1], "small level-text", "end"))
        body += self._labels()
        body += [self._mark(mark) for mark in self.marks]
        return frame(self.title, self.description, HEIGHT, body)

    def _px(self, x: float) -> float:
        low, high = self._x[0], self._x[-1]
        return LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def _py(self, y: float) -> float:
        low, high = self._y[0], self._y[-1]
        clipped = min(max(y, low), high)
        return HEIGHT - BOTTOM - (clipped - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def _axes(self) -> list[str]:
        parts = []
        for tick in self._x:
            x = self._px(tick)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
            parts.append(text(x, HEIGHT - BOTTOM + 18, self.x_format(tick), "small", "middle"))
        for tick in self._y:
            y = self._py(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(text(LEFT - 8, y + 4, self.y_format(tick), "small", "end"))
        parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, self.x_label, "axis", "middle"))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text class="axis" text-anchor="middle" transform="rotate(-90 14 {middle:.0f})" x="14" '
            f'y="{middle:.0f}">{escape(self.y_label)}</text>'
        )
        return parts

    def _line(self, points: Sequence[tuple[float, float]], style: str) -> str:
        places = " ".join(f"{self._px(x):.1f},{self._py(y):.1f}" for x, y in points)
        return f'<polyline class="line {style}" points="{places}"/>'

    def _mark(self, mark: Mark) -> str:
        x, y = self._px(mark.x), self._py(mark.y)
        whisker = ""
        if mark.span is not None:
            low, high = self._py(mark.span[0]), self._py(mark.span[1])
            whisker = f'<line class="whisker {mark.style}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        return f"<g><title>{escape(mark.tip or mark.label)}</title>{whisker}{symbol(x, y, mark.shape, mark.style)}</g>"

    def _labels(self) -> list[str]:
        """Return the marks' labels, pushed apart so that none covers another."""
        placed: list[tuple[float, float, float]] = []
        parts = []
        for mark in sorted(self.marks, key=lambda mark: self._py(mark.y)):
            if not mark.label:
                continue
            x, y = self._px(mark.x), self._py(mark.y)
            width = 6.6 * len(mark.label)
            right = x + 12 + width < WIDTH - RIGHT
            left, end = (x + 12, x + 12 + width) if right else (x - 12 - width, x - 12)
            spot = y - 6 if y > TOP + 14 else y + 16
            while any(abs(spot - other) < LINE and left < far and near < end for near, far, other in placed):
                spot += 2
            spot = min(spot, HEIGHT - BOTTOM - 4)
            placed.append((left, end, spot))
            parts.append(text(x + 12 if right else x - 12, spot, mark.label, f"label {mark.style}-text",
                              "start" if right else "end"))  # fmt: skip
        return parts


@dataclass(frozen=True)
class Row:
    """One line of a forest chart: a value with its interval."""

    label: str
    value: float
    low: float
    high: float
    style: str = "other"
    hollow: bool = False
    note: str = ""


def forest(
    title: str, description: str, rows: Sequence[Row], low: float, form: Callable[[float], str]
) -> str:
    """Return intervals under each other on one axis.

    Args:
        low: where the axis begins; what lies below is shown as an arrow with its value.
    """
    if not rows:
        return ""
    left, right, step = 190, 96, 26
    ticks = scale([max(row.low, low) for row in rows] + [max(row.high, low) for row in rows] + [low])
    height = TOP + step * len(rows) + 44
    bottom = height - 38

    def px(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (WIDTH - left - right)

    body = []
    for tick in ticks:
        body.append(f'<line class="grid" x1="{px(tick):.1f}" x2="{px(tick):.1f}" y1="{TOP}" y2="{bottom}"/>')
        body.append(text(px(tick), bottom + 18, form(tick), "small", "middle"))
    for index, row in enumerate(rows):
        y = TOP + step * index + step / 2
        body.append(text(left - 12, y + 4, row.label, "label", "end"))
        body.append(text(WIDTH - right + 12, y + 4, form(row.value), "small", "start"))
        tip = f"{row.label}: {form(row.value)} ({form(row.low)} to {form(row.high)}){row.note}"
        if row.value < ticks[0]:
            shape = f'<path class="{row.style}" d="M{left} {y:.1f} l10 -5 v10 z"/>'
        else:
            start, stop = px(max(row.low, ticks[0])), px(min(row.high, ticks[-1]))
            shape = f'<line class="whisker {row.style}" x1="{start:.1f}" x2="{stop:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            shape += symbol(px(row.value), y, "ring" if row.hollow else "circle", row.style)
        body.append(f"<g><title>{escape(tip)}</title>{shape}</g>")
    return frame(title, description, height, body)


def frame(title: str, description: str, height: float, body: Sequence[str]) -> str:
    """Return an ``svg`` element that scales with the page and reads out as title and description."""
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height:.0f}" preserveAspectRatio="xMidYMid meet">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(body)}</svg>"
    )


def text(x: float, y: float, words: str, style: str, anchor: str) -> str:
    """Return a line of text."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def symbol(x: float, y: float, shape: str, style: str) -> str:
    """Return a point: shapes differ as well as colours, for those who see few of these."""
    if shape == "square":
        return f'<rect class="{style}" x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"/>'
    if shape == "diamond":
        return f'<path class="{style}" d="M{x:.1f} {y - 8:.1f} l8 8 l-8 8 l-8 -8 z"/>'
    if shape == "ring":
        return f'<circle class="ring {style}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'


def scale(values: Sequence[float]) -> list[float]:
    """Return round ticks, four to nine of them, that reach from below the least to above the greatest value."""
    low, high = min(values), max(values)
    if high - low < 1e-12:
        pad = abs(high) * 0.05 if abs(high) > 1e-9 else 0.5
        low, high = low - pad, high + pad
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, max(last, first + 1) + 1)]
