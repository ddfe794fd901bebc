"""LiteLLM's SDK against a router before the engine double: python ask_litellm.py URL KEY MODEL."""

from __future__ import annotations

import json
from typing import Any

import litellm
from reporting import FACTS, SCHEMA, TOOL, Target, report, same

ASKED = [{"role": "user", "content": "Say something."}]


def told(target: Target, **more: Any) -> dict[str, Any]:
    return {
        "model": f"openai/{target.model}", "api_base": target.url, "api_key": target.key, "messages": ASKED,
        "num_retries": 0, **more,
    }  # fmt: skip


def chat(target: Target) -> None:
    """completion, with usage"""
    found = litellm.completion(**told(target))
    same((found.choices[0].message.content, found.usage.completion_tokens), (FACTS, len(FACTS.split())))


def stream(target: Target) -> None:
    """completion streamed"""
    same(
        "".join(
            part.choices[0].delta.content or "" for part in litellm.completion(**told(target, stream=True))
        ),
        FACTS,
    )


async def asynchronously(target: Target) -> None:
    """acompletion, whole and streamed"""
    same((await litellm.acompletion(**told(target))).choices[0].message.content, FACTS)
    parts = await litellm.acompletion(**told(target, stream=True))
    same("".join([part.choices[0].delta.content or "" async for part in parts]), FACTS)


def late(target: Target) -> None:
    """completion streamed, the first token after 3 s, comments before it"""
    slow = told(target, stream=True, messages=[{"role": "user", "content": "slowly 3"}])
    same("".join(part.choices[0].delta.content or "" for part in litellm.completion(**slow)), FACTS)


def tools(target: Target) -> None:
    """tools"""
    call = litellm.completion(**told(target, tools=[TOOL])).choices[0].message.tool_calls[0]
    same((call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Paris"}))


def structured(target: Target) -> None:
    """structured output: response_format"""
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    found = litellm.completion(**told(target, response_format=form))
    same(json.loads(found.choices[0].message.content), {"city": "Paris", "people": 7})


def refused(target: Target) -> None:
    """errors: 401 and 404 as its own exceptions"""
    for more, kind in (
        ({"api_key": "lm-wrong"}, litellm.AuthenticationError),
        ({"model": "openai/another"}, litellm.NotFoundError),
    ):
        try:
            litellm.completion(**told(target, **more))
        except kind:
            continue
        raise AssertionError(f"no {kind.__name__}")


if __name__ == "__main__":
    report([chat, stream, asynchronously, late, tools, structured, refused])
