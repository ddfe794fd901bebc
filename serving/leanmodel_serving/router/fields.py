"""What the router itself reads of a body: one table, by which bodies are checked and described to clients. Pure.

What the engine reads besides (types and ranges of sampling parameters, tools, schemas) is left to it: it refuses in its
own words, and a field that it learns tomorrow needs no new router.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .errors import ApiError

Endpoint = Literal["chat", "completions", "classify", "embeddings"]


@dataclass(frozen=True)
class Field:
    """One field of a body.

    Attributes:
        name: as clients write it.
        kinds: types that its value may have; true is no whole number, and 1.0 neither.
        expected: the same for people, in an error.
        says: what it does, for the document.
        required: whether it must be there; others may also be null.
        items: types of a list's items, of which there must be one then; empty leaves a list to the engine.
    """

    name: str
    kinds: tuple[type, ...]
    expected: str
    says: str
    required: bool = False
    items: tuple[type, ...] = ()

    def takes(self, value: object) -> bool:
        """Say whether a value will do."""
        if value is None:
            return not self.required
        if type(value) not in self.kinds:
            return False
        return not (self.items and isinstance(value, list)) or (
            bool(value) and all(type(item) in self.items for item in value)
        )


_STREAM = (
    Field("stream", (bool,), "true or false", "Whether the answer comes in server-sent events."),
    Field("n", (int,), "a whole number", "How many answers; more than one goes to the large model."),
    Field(
        "stream_options",
        (dict,),
        "an object",
        "include_usage: true asks for a last chunk with the usage, in which the cost is told too.",
    ),
)
_INPUT = Field("input", (str, list), "a text, or a list of texts", "What is read.", required=True)
FIELDS: dict[Endpoint, tuple[Field, ...]] = {
    "chat": (
        Field(
            "messages", (list,), "a list of objects with role and content", "The conversation so far.", True, (dict,)
        ),
        Field("logprobs", (bool,), "true or false", "Whether each token's log-probability is told."),
        Field("top_logprobs", (int,), "a whole number", "Of how many more tokens at each place."),
        *_STREAM,
    ),
    "completions": (
        Field("prompt", (str, list), "a text", "What is gone on with; a list goes to the large model.", True),
        Field("logprobs", (int, bool), "a whole number", "Of how many tokens at each place the log-probability is told."),
        *_STREAM,
    ),
    "classify": (_INPUT,),
    "embeddings": (_INPUT,),
}  # fmt: skip
"""By endpoint; ``model`` is checked before, and must be the name of what is served."""


def check(body: Mapping[str, Any], endpoint: Endpoint) -> None:
    """Hold a body against the table.

    Raises:
        ApiError: 400, for the first field that will not do.
    """
    for field in FIELDS[endpoint]:
        value = body.get(field.name)
        if not field.takes(value):
            if field.required:
                raise ApiError(400, f"{field.name}: expected {field.expected}", param=field.name)
            raise ApiError(
                400,
                f"{field.name}: found {type(value).__name__}, expected {field.expected}",
                param=field.name,
            )
