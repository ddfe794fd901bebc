"""Pieces of HTML. Whatever comes from data or models passes through :func:`escape` here, without exception:
prompts are other people's text and may be hostile."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Raw:
    """HTML that our own code made; everything else is text."""

    html: str


Content = Raw | str


def escape(text: str) -> str:
    """Return text that shows as itself inside elements and quoted attributes.

    Control characters and those that turn the direction of writing are shown as a box with their code:
    they could make a report say something else than what is in the data.
    """
    return html.escape("".join(_shown(character) for character in text), quote=True)


def _shown(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn"):
        return character
    return f"[U+{ord(character):04X}]" if unicodedata.category(character) != "Cn" else character


def text(content: Content) -> str:
    """Return content as HTML."""
    return content.html if isinstance(content, Raw) else escape(content)


def tag(name: str, *contents: Content, css: str = "", **attributes: str) -> Raw:
    """Return an element."""
    named = ({"class": css} if css else {}) | attributes
    rendered = "".join(f' {key}="{escape(value)}"' for key, value in named.items())
    return Raw(f"<{name}{rendered}>{''.join(text(content) for content in contents)}</{name}>")


def join(*contents: Content) -> Raw:
    """Return contents one after the other."""
    return Raw("".join(text(content) for content in contents))


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[Content]], numeric: frozenset[int]
) -> Raw:
    """Return a table with a caption and column heads; the first column heads its row.

    Args:
        numeric: columns that are set to the right.
    """

    def css(index: int) -> str:
        return "n" if index in numeric else ""

    top = tag("tr", *(tag("th", name, css=css(index), scope="col") for index, name in enumerate(head)))
    body = [
        tag("tr", *(
            tag("th", cell, scope="row") if index == 0 else tag("td", cell, css=css(index))
            for index, cell in enumerate(row)
        ))
        for row in rows
    ]  # fmt: skip
    return tag(
        "div", tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body)), css="scroll"
    )


def definitions(pairs: Sequence[tuple[str, Content]]) -> Raw:
    """Return a list of terms and what they are."""
    return tag("dl", *(join(tag("dt", term), tag("dd", content)) for term, content in pairs))
