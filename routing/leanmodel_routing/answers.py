"""When two answers are the same: one rule for the certificate's bound and for the router that watches it."""

from __future__ import annotations


def different(lean_answer: str, large_answer: str) -> bool:
    """Whether two answers differ: by their text without the space around it."""
    return lean_answer.strip() != large_answer.strip()
