"""What is sent for an example, the digest by which its answer is found again, and the most that it can cost. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.parts import Example
from leanmodel_api.teacher import Teacher

from .money import Tariff

# Around a message a chat template puts a few tokens: role, beginning, end.
TEMPLATE_TOKENS = 16


def messages(example: Example, teacher: Teacher) -> list[dict[str, str]]:
    """Return the chat that asks for an example's answer; its own answer is never in it.

    A raw prompt becomes the user's message: few providers still complete raw text.
    """
    found = [{"role": message.role, "content": message.content} for message in example.messages or []]
    if example.messages is None:
        found = [{"role": "user", "content": example.text or ""}]
    if teacher.system is None:
        return found
    return [
        {"role": "system", "content": teacher.system},
        *(message for message in found if message["role"] != "system"),
    ]


def body(example: Example, teacher: Teacher, limit_name: str = "max_tokens") -> dict[str, Any]:
    """Return the request of ``/chat/completions``.

    Args:
        example: what is asked.
        teacher: who is asked.
        limit_name: what the provider calls the bound on the answer's tokens.
    """
    return {
        "model": teacher.external.model, "messages": messages(example, teacher),
        limit_name: teacher.max_tokens, "temperature": number(teacher.temperature), "stream": False,
    }  # fmt: skip


def digest(example: Example, teacher: Teacher) -> str:
    """Return what an answer depends on, as a sha256: provider, model, messages and sampling; no price and no bound."""
    parts = [teacher.external.base_url.rstrip("/"), body(example, teacher)]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def most_tokens(example: Example, teacher: Teacher) -> int:
    """Return the tokens that a prompt has at most: no tokenizer makes more of a text than it has bytes in UTF-8."""
    found = messages(example, teacher)
    return TEMPLATE_TOKENS + sum(TEMPLATE_TOKENS + len(one["content"].encode()) for one in found)


def most(example: Example, teacher: Teacher, tariff: Tariff) -> int:
    """Return the most that a call can cost (10⁻¹² US dollars)."""
    return tariff.cost(most_tokens(example, teacher), teacher.max_tokens)
