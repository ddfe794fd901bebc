"""What the scripts of this folder share: they run in the clients' environment, and have nothing of ours but this."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FACTS = "The quick brown fox jumps over the lazy dog"
"""What the engine double answers to everything that is no tool, no schema, and no limit of tokens."""
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
          "required": ["city", "people"], "additionalProperties": False}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """Whom to ask: a router's address with /v1, a key, and the model's name."""

    url: str
    key: str
    model: str


def report(scenarios: list[Callable[[Target], Any]]) -> None:
    """Run each and print one line of JSON: what it is (its docstring), and what went wrong, if anything did."""
    target = Target(*sys.argv[1:4])
    for scenario in scenarios:
        try:
            found = scenario(target)
            if inspect.isawaitable(found):
                asyncio.run(found)  # type: ignore[arg-type]
            wrong = ""
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"[:500] or "failed"
        print(json.dumps({"what": inspect.getdoc(scenario), "wrong": wrong}), flush=True)


def same(found: object, wanted: object) -> None:
    """Hold two values to be equal; -O would take an assert away."""
    if found != wanted:
        raise AssertionError(f"found {found!r}, expected {wanted!r}")
