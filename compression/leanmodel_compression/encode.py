"""Examples into tokens, the way the engine sees them.

A chat goes through the tokenizer's own template with the generation prompt, as vLLM's server does, and is
tokenised without further special tokens; a raw prompt is tokenised with them. The answer is tokenised by
itself, because that is where generation begins, and ends with the token that stops generation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from leanmodel_api.parts import Example

from .batches import Row, Rows, cut


def prompt_ids(tokenizer: Any, example: Example) -> list[int]:
    """Return the prompt's tokens as the serving engine makes them from the same request."""
    if example.messages is not None:
        messages = [{"role": message.role, "content": message.content} for message in example.messages]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer.encode(text, add_special_tokens=False))
    return list(tokenizer.encode(example.text or "", add_special_tokens=True))


def answer_ids(tokenizer: Any, answer: str) -> list[int]:
    """Return the answer's tokens and the end token."""
    return [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]


def encode(tokenizer: Any, example: Example) -> Row | None:
    """Return an example as a row, or None when it has nothing to learn from.

    Without an answer a raw text is learned whole, every token from those before it; a chat has nothing.
    """
    prompt = prompt_ids(tokenizer, example)
    if example.answer is not None:
        return Row((*prompt, *answer_ids(tokenizer, example.answer)), len(prompt)) if prompt else None
    if example.text is not None and len(prompt) > 1:
        return Row(tuple(prompt), 1)
    return None


def encode_all(tokenizer: Any, examples: Iterable[Example], length: int | None = None) -> tuple[Row, ...]:
    """Return the rows of the examples that have something to learn from, cut to ``length`` tokens."""
    rows = (encode(tokenizer, example) for example in examples)
    return tuple(row if length is None else cut(row, length) for row in rows if row is not None)


def encode_parts(tokenizer: Any, train: Sequence[Example], validation: Sequence[Example]) -> Rows:
    """Return both parts that training may see, as tokens."""
    return Rows(encode_all(tokenizer, train), encode_all(tokenizer, validation))


def digest(train: Iterable[Example], validation: Iterable[Example]) -> str:
    """Return the sha256 of what a step learns from, so that other parts of the file do not count."""
    state = hashlib.sha256()
    for name, part in (("train", train), ("validation", validation)):
        state.update(name.encode())
        for example in part:
            state.update(example.to_json().encode() + b"\n")
    return "sha256:" + state.hexdigest()
