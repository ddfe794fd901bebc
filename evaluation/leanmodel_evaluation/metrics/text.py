"""How answers are made comparable."""

from __future__ import annotations

import re

NO_CHOICE = -1
"""Stands for an answer that is none of the choices."""

_WORDS = re.compile(r"\w+", re.UNICODE)


def normal(text: str) -> str:
    """Return a text without outer and doubled white space, case-folded."""
    return " ".join(text.split()).casefold()


def words(text: str) -> list[str]:
    """Return the words of a text, case-folded; punctuation is left out."""
    return _WORDS.findall(text.casefold())


def choice(text: str, choices: tuple[str, ...]) -> int:
    """Return the index of the choice that an answer gives, or NO_CHOICE.

    An answer gives the choice that it equals, else the longest one with which it begins and after which
    the word ends: 'spam.' is spam, 'hammer' is not ham, and 'not spam' is 'not spam' before it is 'not'.
    """
    given = normal(text)
    if given in choices:
        return choices.index(given)
    begun = [name for name in choices if name and given.startswith(name) and not _goes_on(given, len(name))]
    return choices.index(max(begun, key=len)) if begun else NO_CHOICE


def _goes_on(text: str, end: int) -> bool:
    """Tell whether a word runs across position ``end``."""
    return text[end].isalnum() and text[end - 1].isalnum()
