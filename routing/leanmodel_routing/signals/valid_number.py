"""Whether the answer is a number: where a number is asked for, words are a miss."""

from __future__ import annotations

import re

from leanmodel_routing.signals.shape import Shape

MOST = 64
"""Characters; a longer answer is no number, and is not looked at."""
_NUMBER = re.compile(
    r"[-+−]?\s?[$€£]?\s?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?([eE][-+]?\d+)?(\s?/\s?\d+)?\s?[%°$€£]?\.?", re.ASCII
)


class ValidNumber(Shape):
    """One feature: 1 where the whole answer is a number, with a sign, a currency, a percent sign or a fraction."""

    name = "valid-number"

    def has(self, text: str) -> bool:
        """Whether it is."""
        return (
            len(text) <= MOST and any(sign.isdigit() for sign in text) and _NUMBER.fullmatch(text) is not None
        )
