"""LangChain's chat model against a router before the engine double: python ask_langchain.py URL KEY MODEL."""

from __future__ import annotations

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings  # noqa: F401 - that both import
from pydantic import BaseModel
from reporting import FACTS, Target, report, same


class Place(BaseModel):
    """An answer with a form."""

    city: str
    people: int


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"warm in {city}"


def model(target: Target) -> ChatOpenAI:
    return ChatOpenAI(model=target.model, base_url=target.url, api_key=target.key, max_retries=0, timeout=60)  # type: ignore[arg-type]


def invoke(target: Target) -> None:
    """invoke, with usage"""
    found = model(target).invoke("Say something.")
    same(found.content, FACTS)
    same(found.usage_metadata["output_tokens"], len(FACTS.split()))


def stream(target: Target) -> None:
    """stream"""
    same("".join(str(part.content) for part in model(target).stream("Say something.")), FACTS)


async def asynchronously(target: Target) -> None:
    """ainvoke and astream"""
    same((await model(target).ainvoke("Say something.")).content, FACTS)
    same("".join([str(part.content) async for part in model(target).astream("Say something.")]), FACTS)


def late(target: Target) -> None:
    """stream, the first token after 3 s, comments before it"""
    same("".join(str(part.content) for part in model(target).stream("slowly 3")), FACTS)


def tools(target: Target) -> None:
    """bind_tools: a call, and the tool's answer taken"""
    bound, asked = model(target).bind_tools([weather]), HumanMessage("What is the weather?")
    first = bound.invoke([asked])
    same([(call["name"], call["args"]) for call in first.tool_calls], [("weather", {"city": "Paris"})])
    answered = ToolMessage(
        weather.invoke(first.tool_calls[0]["args"]), tool_call_id=first.tool_calls[0]["id"]
    )
    same(
        bound.invoke([asked, AIMessage("", tool_calls=first.tool_calls), answered]).content,
        "It is warm in Paris",
    )


def structured(target: Target) -> None:
    """with_structured_output, by JSON schema and by a tool"""
    for method in ("json_schema", "function_calling"):
        found = model(target).with_structured_output(Place, method=method).invoke("Where?")
        same(found, Place(city="Paris", people=7))


if __name__ == "__main__":
    report([invoke, stream, asynchronously, late, tools, structured])
