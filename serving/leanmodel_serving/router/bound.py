"""The most that a request may cost, before anything is generated; and what one that was broken off did cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from .ask import ENCODERS, Ask
from .cost import BYTES_PER_TOKEN, Tariff, Usage

TEMPLATE_TOKENS = 64
"""What a chat template puts around each message, at most, as far as any is known."""
SPECIAL_TOKENS = 2
"""What a tokenizer puts around a text that is no chat."""
RAW_ANSWER = 16
"""Tokens of a raw completion that does not say how many (OpenAI's default, and vLLM's)."""
UNKNOWN_LENGTH = 8192
"""Tokens of context where no engine says its own."""
GUESS_S = 10.0
"""Seconds that are held for a request whose price is by the second: it has no bound, what it took is settled."""


def most_tokens(ask: Ask, size: int, fill: Mapping[str, float | int], length: int | None) -> Usage:
    """Return the most tokens that a model can use for a request.

    A prompt has no more tokens than its body has bytes; prompt and answer together no more than the context.

    Args:
        size: bytes of the request's body.
        fill: sampling parameters to use where the request leaves them.
        length: tokens of the model's context; None where unknown.
    """
    context = length or UNKNOWN_LENGTH
    prompts = _prompts(ask)
    messages = ask.body.get("messages") if ask.endpoint == "chat" else None
    extra = (len(messages) + 1) * TEMPLATE_TOKENS if messages else prompts * SPECIAL_TOKENS
    prompt = min(size + extra, context * prompts)
    if ask.endpoint in ENCODERS:
        return Usage(prompt, 0)
    answer = ask.sampling("max_tokens", fill)
    if answer is None and ask.endpoint == "completions":
        answer = RAW_ANSWER
    # What is no number the engine refuses in its own words, and costs nothing.
    whole = int(answer) if isinstance(answer, int) and 0 < answer < context else context
    return Usage(prompt, whole * prompts * max(_count(ask, "n"), _count(ask, "best_of")))


def most_nano(tariff: Tariff, usage: Usage) -> int:
    """Return the most that a model can cost for so many tokens, in nano-dollars."""
    return tariff.nano(usage, GUESS_S)


def likely_tokens(ask: Ask, size: int, fill: Mapping[str, float | int]) -> int:
    """Return the tokens that count against a key's rate until the real ones are known."""
    answer = ask.sampling("max_tokens", fill)
    known = answer if isinstance(answer, int) and 0 < answer < 10**7 else 0
    return size // BYTES_PER_TOKEN + int(known) * _count(ask, "n")


def broken_off(tariff: Tariff, size: int, events: int, seconds: float) -> int:
    """Return about what a stream has cost that its client left, in nano-dollars.

    Its usage never came: an event is about a token, and a token about four bytes of the prompt. Without this a client
    could have most of every answer for nothing.

    Args:
        size: bytes of the request's body.
        events: events that were sent.
        seconds: since the request came.
    """
    return tariff.nano(Usage(size // BYTES_PER_TOKEN, events), seconds) if events else 0


def _prompts(ask: Ask) -> int:
    given = ask.body.get("input" if ask.endpoint in ENCODERS else "prompt")
    several = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
    return len(given) if several and isinstance(given, list) else 1


def _count(ask: Ask, name: str) -> int:
    value = ask.body.get(name)
    return max(1, min(value, 1000)) if isinstance(value, int) else 1
