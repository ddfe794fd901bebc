"""Whether everything that the answer opens is closed: brackets, quotes of one line, fences of code.

Code that breaks off, or closes what it never opened, does not parse in any language. To parse it would take a parser
for each language, in the router, on text that nobody has vetted; this takes one pass. Single quotes are not taken for
quotes: in prose they are apostrophes.
"""

from __future__ import annotations

from leanmodel_routing.signals.shape import Shape

MOST = 20_000
"""Characters that are looked at; a longer answer counts by its beginning, where nothing may close too early."""
_PAIRS = {")": "(", "]": "[", "}": "{"}
_OPENING = frozenset(_PAIRS.values())


class ClosedCode(Shape):
    """One feature: 1 where brackets and fences are closed in their order; an answer without any has none, 0."""

    name = "closed-code"

    def has(self, text: str) -> bool:
        """Whether there are brackets or fences, and all are closed. Brackets within quotes do not count."""
        if text.count("```") % 2:
            return False
        open_ones: list[str] = []
        quote, seen, skip = "", "```" in text, False
        for sign in text[:MOST]:
            if skip:
                skip = False
            elif sign == "\\":
                skip = True
            elif quote:
                # A quote that its line does not close was none, such as a sign for inches.
                quote = "" if sign in (quote, "\n") else quote
            elif sign == '"':
                quote = sign
            elif sign in _OPENING:
                seen = True
                open_ones.append(sign)
            elif sign in _PAIRS and (not open_ones or open_ones.pop() != _PAIRS[sign]):
                return False
        return seen and (not open_ones or len(text) > MOST)
