"""Rows from the bytes of a TSV, CSV, JSONL or text file. Pure; every message names the line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from leanmodel_api.errors import InputError, one

Format = Literal["TSV", "CSV", "JSONL", "Text"]
LONGEST_CELL = 2**26
_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True)
class Row:
    """One row: the line of the file where it begins (from 1), and its text values by column."""

    line: int
    values: dict[str, str]


@dataclass(frozen=True)
class Table:
    """The rows of a file and the names of its columns, in the file's order."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_rows(data: bytes, format: Format, field: str) -> Table:
    """Read a file.

    TSV has no quoting (a quote is a character like any other) and no line breaks in values; CSV quotes as in
    RFC 4180; JSONL has an object a line (numbers and booleans become text); Text a row ``text`` a paragraph.

    Args:
        data: the file's bytes, UTF-8, with or without a byte order mark.
        format: as in the manifest.
        field: the manifest's field of the data set.

    Raises:
        InputError: empty, not UTF-8, or malformed.
    """
    text = _decoded(data, field)
    if not text.strip():
        raise one(InputError, f"{field}.source", "the file is empty", "name a file with rows")
    table = {"TSV": _tsv, "CSV": _csv, "JSONL": _jsonl, "Text": _text}[format](text, field)
    if not table.rows:
        raise one(InputError, f"{field}.source", "the file has a header and no rows", "name a file with rows")
    return table


def _decoded(data: bytes, field: str) -> str:
    name = _BOMS.get(data[:2])
    if name is None:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            name = f"not UTF-8: byte {data[error.start]:#04x} in line {line}"
        else:
            if "\0" not in text:
                return text
            name = f"not text: a zero byte in line {text.count(chr(10), 0, text.index(chr(0))) + 1}"
    advice = "save it as UTF-8 (`iconv -f latin1 -t utf-8` converts)"
    raise one(InputError, f"{field}.source", f"the file is {name}", advice)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) without line ends; str.splitlines would also split at other characters."""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip():
            yield number, line


def _header(names: list[str], field: str) -> tuple[str, ...]:
    columns = tuple(name.strip() for name in names)
    if "" in columns or len(set(columns)) < len(columns):
        raise one(
            InputError, f"{field}.source", f"the header has empty or repeated names: {', '.join(columns)}",
            "give every column a name of its own in the first line",
        )  # fmt: skip
    return columns


def _row(line: int, columns: tuple[str, ...], cells: list[str], field: str) -> Row:
    if len(cells) != len(columns):
        raise one(
            InputError, f"{field}.source",
            f"line {line} has {len(cells)} fields, and the header has {len(columns)} ({', '.join(columns)})",
            "correct the line, or the data set's `format`",
        )  # fmt: skip
    return Row(line, dict(zip(columns, cells, strict=True)))


def _tsv(text: str, field: str) -> Table:
    lines = _lines(text)
    columns = _header(next(lines)[1].split("\t"), field)
    return Table(columns, tuple(_row(number, columns, line.split("\t"), field) for number, line in lines))


def _csv(text: str, field: str) -> Table:
    before = csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    columns: tuple[str, ...] | None = None
    end = 0
    try:
        for cells in reader:
            start, end = end + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _header(cells, field)
            else:
                rows.append(_row(start, columns, cells, field))
    except csv.Error as error:
        raise one(
            InputError, f"{field}.source", f"line {reader.line_num} is not CSV ({error})",
            "quote values that hold commas, quotes or line breaks, and double the quotes inside them",
        ) from error  # fmt: skip
    finally:
        csv.field_size_limit(before)
    return Table(columns or (), tuple(rows))


def _jsonl(text: str, field: str) -> Table:
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for number, line in _lines(text):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise one(
                InputError, f"{field}.source", f"line {number} is not JSON ({error})",
                "write one JSON object a line, or set the data set's `format`",
            ) from error  # fmt: skip
        if not isinstance(value, dict):
            raise one(
                InputError, f"{field}.source", f"line {number} holds {_kind(value)}, not an object",
                'write objects such as {"prompt": "…", "answer": "…"}',
            )  # fmt: skip
        if any(isinstance(cell, str) and not _encodes(cell) for cell in value.values()):
            raise one(
                InputError,
                f"{field}.source",
                f"line {number} has half of a surrogate pair (\\ud8…) in a text",
                "write whole characters",
            )
        columns.update(dict.fromkeys(value))
        rows.append(Row(number, {name: _scalar(cell) for name, cell in value.items() if _is_scalar(cell)}))
    return Table(tuple(columns), tuple(rows))


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")


def _text(text: str, field: str) -> Table:
    rows: list[Row] = []
    paragraph: list[str] = []
    start = 0
    for number, line in enumerate([*text.replace("\r\n", "\n").split("\n"), ""], start=1):
        if line.strip():
            start = start if paragraph else number
            paragraph.append(line)
        elif paragraph:
            rows.append(Row(start, {"text": "\n".join(paragraph).strip()}))
            paragraph = []
    return Table(("text",), tuple(rows))
