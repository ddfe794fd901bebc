"""OpenAI's own client against a router before the engine double: python ask_openai.py URL KEY MODEL."""

from __future__ import annotations

import json
from typing import Any

from openai import APIStatusError, AsyncOpenAI, AuthenticationError, NotFoundError, OpenAI
from pydantic import BaseModel
from reporting import FACTS, SCHEMA, TOOL, Target, report, same

ASKED: list[Any] = [{"role": "user", "content": "Say something."}]
SLOW: list[Any] = [{"role": "user", "content": "slowly 3"}]


class Place(BaseModel):
    """An answer with a form."""

    city: str
    people: int


def client(target: Target) -> OpenAI:
    return OpenAI(base_url=target.url, api_key=target.key, max_retries=0, timeout=60)


def asynchronous(target: Target) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=target.url, api_key=target.key, max_retries=0, timeout=60)


def models(target: Target) -> None:
    """models"""
    same([model.id for model in client(target).models.list()], [target.model])
    same(client(target).models.retrieve(target.model).owned_by, "leanmodel")


def chat(target: Target) -> None:
    """chat, with the headers of the answer"""
    raw = client(target).chat.completions.with_raw_response.create(model=target.model, messages=ASKED)
    same(raw.parse().choices[0].message.content, FACTS)
    same(raw.headers["x-leanmodel-route"] in ("lean", "large", "escalated"), True)
    same(float(raw.headers["x-leanmodel-cost-usd"]) > 0, True)


def stream(target: Target) -> None:
    """chat streamed, the cost in its last chunk"""
    text, cost = "", 0.0
    for chunk in client(target).chat.completions.create(
        model=target.model, messages=ASKED, stream=True, stream_options={"include_usage": True}
    ):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        if chunk.usage is not None:
            cost = float((chunk.usage.model_extra or {})["cost_usd"])
    same(text, FACTS)
    same(cost > 0, True)


async def asynchronously(target: Target) -> None:
    """chat asynchronously"""
    async with asynchronous(target) as asked:
        found = await asked.chat.completions.create(model=target.model, messages=ASKED)
    same(found.choices[0].message.content, FACTS)


async def stream_asynchronously(target: Target) -> None:
    """chat streamed asynchronously"""
    async with asynchronous(target) as asked:
        text = ""
        async for chunk in await asked.chat.completions.create(
            model=target.model, messages=ASKED, stream=True
        ):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
    same(text, FACTS)


def late(target: Target) -> None:
    """chat streamed, the first token after 3 s, comments before it"""
    text = ""
    for chunk in client(target).chat.completions.create(model=target.model, messages=SLOW, stream=True):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    same(text, FACTS)


def tools(target: Target) -> None:
    """a tool called, and its answer taken"""
    asked = client(target)
    first = asked.chat.completions.create(model=target.model, messages=ASKED, tools=[TOOL])  # type: ignore[list-item]
    call = (first.choices[0].message.tool_calls or [])[0]
    same((call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Paris"}))  # type: ignore[union-attr]
    answered = {"role": "tool", "tool_call_id": call.id, "content": "warm"}
    again = [*ASKED, first.choices[0].message.model_dump(exclude_none=True), answered]
    second = asked.chat.completions.create(model=target.model, messages=again, tools=[TOOL])  # type: ignore[list-item]
    same(second.choices[0].message.content, "It is warm")


def tools_streamed(target: Target) -> None:
    """a tool called in a stream"""
    with client(target).chat.completions.stream(model=target.model, messages=ASKED, tools=[TOOL]) as events:  # type: ignore[list-item]
        final = events.get_final_completion()
    call = (final.choices[0].message.tool_calls or [])[0]
    same((call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Paris"}))


def structured(target: Target) -> None:
    """structured output: response_format, and parse with a pydantic model"""
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    found = client(target).chat.completions.create(model=target.model, messages=ASKED, response_format=form)  # type: ignore[call-overload]
    same(json.loads(found.choices[0].message.content), {"city": "Paris", "people": 7})
    parsed = client(target).chat.completions.parse(model=target.model, messages=ASKED, response_format=Place)
    same(parsed.choices[0].message.parsed, Place(city="Paris", people=7))


def logprobs(target: Target) -> None:
    """log-probs as asked for, and none unasked"""
    asked = client(target)
    found = asked.chat.completions.create(model=target.model, messages=ASKED, logprobs=True, top_logprobs=1)
    content = found.choices[0].logprobs.content if found.choices[0].logprobs else None
    same([len(token.top_logprobs) for token in content or ()], [1] * len(FACTS.split()))
    same(asked.chat.completions.create(model=target.model, messages=ASKED).choices[0].logprobs, None)


def raw_completion(target: Target) -> None:
    """completions, whole and streamed"""
    asked = client(target)
    same(asked.completions.create(model=target.model, prompt="a").choices[0].text, FACTS)
    parts = asked.completions.create(model=target.model, prompt="a", stream=True)
    same("".join(chunk.choices[0].text for chunk in parts if chunk.choices), FACTS)


def refused(target: Target) -> None:
    """errors: 401, 404 and 400 as the client's own exceptions"""
    wrong = OpenAI(base_url=target.url, api_key="lm-wrong", max_retries=0)
    for asked, model, count, kind in (
        (wrong, target.model, 1, AuthenticationError),
        (client(target), "another", 1, NotFoundError),
        (client(target), target.model, "two", APIStatusError),
    ):
        try:
            asked.chat.completions.create(model=model, messages=ASKED, n=count)  # type: ignore[arg-type]
        except kind as error:
            same(bool(error.body), True)
        else:
            raise AssertionError(f"no {kind.__name__}")


if __name__ == "__main__":
    report([models, chat, stream, asynchronously, stream_asynchronously, late, tools, tools_streamed, structured,
            logprobs, raw_completion, refused])  # fmt: skip
