"""Whether the answer is a JSON object or array: where most answers are, one that is not has gone wrong."""

from __future__ import annotations

import json

from leanmodel_routing.signals.shape import Shape, unfenced


class ValidJson(Shape):
    """One feature: 1 where the whole answer, its Markdown fence aside, is a JSON object or array."""

    name = "valid-json"

    def has(self, text: str) -> bool:
        """Whether it is. A bare number or word is none: every classifier's answer would be JSON."""
        text = unfenced(text)
        if not text.startswith(("{", "[")):
            return False
        try:
            json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return False
        return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
