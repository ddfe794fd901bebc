"""Prompt and answer templates: ``{column}`` stands for the row's value, ``{{`` and ``}}`` for braces."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

from leanmodel_api.errors import InputError, one

_NAME = re.compile(r"[^.\[\]{}!:\s](?:[^.\[\]{}!:]*[^.\[\]{}!:\s])?")


@dataclass(frozen=True)
class Template:
    """A parsed template: literal text and column names in turn, ``(literal, column or None)``."""

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The distinct columns in it, in order."""
        return tuple(dict.fromkeys(column for _, column in self.pieces if column is not None))

    def render(self, values: Mapping[str, str]) -> str:
        """Return the text for one row; ``values`` has all columns. A value's own braces stay as they are."""
        return "".join(text + (values[column] if column is not None else "") for text, column in self.pieces)


def parse(text: str, field: str) -> Template:
    """Parse a template.

    Raises:
        InputError: a lone brace, or more between the braces than a column's name (no attributes, indexes,
            conversions or formats).
    """
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise one(
            InputError, field, f"the template {_short(text)} cannot be read ({error})",
            "write {column} for a value, and {{ or }} for a brace of the text",
        ) from error  # fmt: skip
    pieces: list[tuple[str, str | None]] = []
    for literal, name, spec, conversion in parts:
        if name is not None and (spec or conversion or not _NAME.fullmatch(name)):
            raise one(
                InputError, field, f"the template {_short(text)} has more than a column's name in braces",
                "write {column}; braces of the text are doubled: {{ and }}",
            )  # fmt: skip
        pieces.append((literal, name))
    return Template(tuple(pieces))


def require_columns(template: Template, columns: Sequence[str], field: str) -> None:
    """Refuse a template that names a column which the file does not have.

    Raises:
        InputError: naming the missing columns, those found, and what was probably meant.
    """
    missing = [column for column in template.columns if column not in columns]
    if not missing:
        return
    close = difflib.get_close_matches(missing[0], columns, n=1)
    meant = close[0] if close else (columns[0] if columns else "column")
    raise one(
        InputError, field,
        f"it names the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}, and the file has "
        f"{', '.join(columns) or 'none'}",
        f"name a column of the file, such as {{{meant}}}",
    )  # fmt: skip


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
