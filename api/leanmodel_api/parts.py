"""Rows of a data set as the Jobs hand them around."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Part


class Message(Part):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class Example(Part):
    """One row: what is asked, and what is wanted."""

    id: str = Field(description="Digest of the prompt: stable across runs and orders.")
    messages: list[Message] | None = Field(None, description="Chat prompt; either this or text.")
    text: str | None = Field(None, description="Raw prompt; either this or messages.")
    answer: str | None = Field(None, description="Wanted answer, when there is one.")
    group: str | None = Field(None, description="Kind of request, when the data set names one.")

    def plain(self) -> str:
        """Return the prompt as plain text: the user's message, or the raw prompt."""
        return (
            self.text
            if self.text is not None
            else (self.messages or [Message(role="user", content="")])[-1].content
        )
