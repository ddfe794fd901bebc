"""The figures of the page, beside it: a machine that has none of the models goes on with what another one found.

One JSON object a line, in the order of the rows. A row counts as long as it is defined as it was: other steps, or other
windows and messages to judge by, and it is not yet run again. The models themselves lie in the work folder alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from leanmodel_api.report import Estimate

from .rows import Row
from .table import Found, Line

NUMBERS = ("date", "bytes", "parameters", "seconds", "peak", "estimated", "busy")


def definition(row: Row, asked: Iterable[Any]) -> str:
    """Return what a row's figures hold for: its steps and how it is judged."""
    return hashlib.sha256(json.dumps([row.steps, *asked], sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path, rows: list[Row], asked: list[Any]) -> Found:
    """Return what was recorded of rows that are defined as they were; nothing where there is no file.

    Args:
        path: the record.
        rows: as they are defined now.
        asked: how rows are judged now.

    Raises:
        ValueError: a line is not a JSON object.
    """
    found, known = Found(rows), {row.id: row for row in rows}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        line = json.loads(text)
        name, row = str(line["of"]), known.get(str(line["of"]))
        if line["kind"] == "baseline":
            found.baselines.setdefault(name, {})[line["name"]] = estimates(line["figures"])
            continue
        if row is None or line["defined"] != definition(row, asked):
            continue
        if line["kind"] == "row":
            told = {number: line[number] for number in NUMBERS}
            found.lines[name] = Line(row=row, figures=estimates(line["figures"]), **told)
        elif line["kind"] == "speed":
            found.speeds[name] = Estimate.model_validate(line["ratio"])
            found.rates |= line["rates"]
        else:
            found.direct[name] = line["told"]
    return found


def write(path: Path, found: Found, asked: list[Any]) -> None:
    """Record everything that was found."""
    lines: list[dict[str, Any]] = []
    for row in found.rows:
        head = {"of": row.id, "defined": definition(row, asked)}
        if (line := found.lines.get(row.id)) is not None:
            told = {number: getattr(line, number) for number in NUMBERS}
            lines.append({"kind": "row", **head, **told, "figures": plain(line.figures)})
        if (speed := found.speeds.get(row.id)) is not None:
            large = f"{row.subject}/large"
            rates = {large: found.rates[large]} if large in found.rates else {}
            lines.append({"kind": "speed", **head, "ratio": speed.model_dump(), "rates": rates})
        if (direct := found.direct.get(row.id)) is not None:
            lines.append({"kind": "direct", **head, "told": direct})
    for subject, models in found.baselines.items():
        for name, figures in models.items():
            lines.append({"kind": "baseline", "of": subject, "name": name, "figures": plain(figures)})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def plain(figures: Mapping[str, Estimate]) -> dict[str, Any]:
    """Return figures as JSON has them."""
    return {name: value.model_dump() for name, value in figures.items()}


def estimates(figures: Mapping[str, Any]) -> dict[str, Estimate]:
    """Return figures from what JSON has."""
    return {name: Estimate.model_validate(value) for name, value in figures.items()}
