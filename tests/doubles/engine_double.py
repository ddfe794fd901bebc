"""An engine that answers in vLLM's forms at once, and always the same: texts, streams, tools, schemas, log-probs, vectors.

It takes whatever it can make anything of, so that what is refused was refused by the router. A user who writes ``slowly N``
gets the first token after N seconds.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from aiohttp import web

WORDS = ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
LOGPROB = -0.05
VECTOR = [0.25, -0.5, 0.75]
MOST_CHOICES = 4


def sample(schema: Any) -> Any:
    """A value that fits a JSON schema, as far as tools and answers use them."""
    if not isinstance(schema, dict):
        return None
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return {name: sample(part) for name, part in dict(schema.get("properties") or {}).items()}
    if kind == "array":
        return [sample(schema.get("items"))]
    return {"integer": 7, "number": 7.5, "boolean": True, "null": None}.get(str(kind), "Paris")


def called(body: dict[str, Any]) -> dict[str, Any] | None:
    """The tool call that answers a body, None where it wants none, or has the tool's answer already."""
    tools = [tool for tool in listed(body, "tools") if isinstance(tool.get("function"), dict)]
    last = (listed(body, "messages") or [{}])[-1]
    if not tools or last.get("role") == "tool" or body.get("tool_choice") == "none":
        return None
    choice = body.get("tool_choice")
    wanted = choice["function"].get("name") if isinstance(choice, dict) and isinstance(choice.get("function"), dict) else None  # fmt: skip
    function = next(
        (tool["function"] for tool in tools if tool["function"].get("name") == wanted), tools[0]["function"]
    )
    arguments = json.dumps(sample(function.get("parameters")) or {})
    return {
        "id": "call_1",
        "type": "function",
        "function": {"name": str(function.get("name")), "arguments": arguments},
    }


def listed(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = body.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def words(body: dict[str, Any]) -> list[str]:
    """The answer's tokens, one a word."""
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        inner = wanted.get("json_schema")
        return [json.dumps(sample(inner.get("schema") if isinstance(inner, dict) else None))]
    last = (listed(body, "messages") or [{}])[-1]
    if last.get("role") == "tool":
        return ["It", " is", f" {last.get('content')}"]
    most = body.get("max_tokens") or body.get("max_completion_tokens")
    count = most if isinstance(most, int) and 0 < most < len(WORDS) else len(WORDS)
    return [word if index == 0 else f" {word}" for index, word in enumerate(WORDS[:count])]


def logprobs(body: dict[str, Any], tokens: list[str], chat: bool) -> dict[str, Any] | None:
    if body.get("logprobs") in (None, False):
        return None
    if chat:
        best = [
            {"token": "x", "logprob": LOGPROB, "bytes": None},
            {"token": "y", "logprob": -4.0, "bytes": None},
        ]
        return {
            "content": [{**best[0], "token": token, "top_logprobs": best} for token in tokens],
            "refusal": None,
        }
    return {
        "tokens": tokens, "token_logprobs": [LOGPROB] * len(tokens), "text_offset": [0] * len(tokens),
        "top_logprobs": [{token: LOGPROB, "y": -4.0} for token in tokens],
    }  # fmt: skip


def choices(body: dict[str, Any], chat: bool) -> list[dict[str, Any]]:
    call, tokens = called(body) if chat else None, words(body)
    text = "".join(tokens)
    found: dict[str, Any] = {
        "logprobs": logprobs(body, tokens, chat),
        "finish_reason": "tool_calls" if call else "stop",
    }
    if chat:
        said = {"content": None, "tool_calls": [call]} if call else {"content": text}
        found["message"] = {"role": "assistant", **said}
    else:
        found["text"] = text
    count = body.get("n")
    return [
        {"index": index, **found}
        for index in range(min(count, MOST_CHOICES) if isinstance(count, int) and count > 0 else 1)
    ]


def chunks(body: dict[str, Any], chat: bool) -> Iterator[list[dict[str, Any]]]:
    call = called(body) if chat else None
    if call is not None:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        begin = {**call, "index": 0, "function": {"name": name, "arguments": ""}}
        for delta in ({"role": "assistant", "content": None, "tool_calls": [begin]},
                      {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}):  # fmt: skip
            yield [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]
    else:
        for token in words(body):
            found: dict[str, Any] = {
                "index": 0,
                "logprobs": logprobs(body, [token], chat),
                "finish_reason": None,
            }
            yield [found | ({"delta": {"role": "assistant", "content": token}} if chat else {"text": token})]
    end: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
    yield [{"index": 0, **end, "logprobs": None, "finish_reason": "tool_calls" if call else "stop"}]


async def waited(body: dict[str, Any]) -> None:
    text = (listed(body, "messages") or [{}])[-1].get("content") or body.get("prompt")
    if isinstance(text, str) and text.startswith("slowly "):
        with suppress(ValueError):
            await asyncio.sleep(min(60.0, float(text.split()[1])))


async def generate(request: web.Request) -> web.StreamResponse:
    body, chat = await request.json(), request.path.endswith("/chat/completions")
    kind = "chat.completion" if chat else "text_completion"
    head = {"id": "cmpl-1", "created": 1, "model": body["model"]}
    usage = {"prompt_tokens": 5, "completion_tokens": len(words(body)), "total_tokens": 5 + len(words(body))}
    if not body.get("stream"):
        await waited(body)
        return web.json_response({**head, "object": kind, "choices": choices(body, chat), "usage": usage})
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    await waited(body)
    head["object"] = "chat.completion.chunk" if chat else kind
    for part in chunks(body, chat):
        await response.write(f"data: {json.dumps({**head, 'choices': part})}\n\n".encode())
    if (body.get("stream_options") or {}).get("include_usage"):
        await response.write(f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response


async def embed(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    packed = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    vector: Any = packed if body.get("encoding_format") == "base64" else VECTOR
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, _ in enumerate(texts)]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return web.json_response({"object": "list", "model": body["model"], "data": data, "usage": usage})


@web.middleware
async def taken(request: web.Request, handler: Any) -> web.StreamResponse:
    """What it can make nothing of it refuses, as vLLM does."""
    try:
        found: web.StreamResponse = await handler(request)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        words = {"message": repr(error)[:200], "type": "BadRequestError", "param": None, "code": 400}
        return web.json_response({"error": words}, status=400)
    return found


@contextmanager
def engine() -> Iterator[str]:
    """The engine on a thread of its own; gives its base address."""
    loop, ready, addresses = asyncio.new_event_loop(), threading.Event(), list[str]()
    runners: list[web.AppRunner] = []

    async def start() -> None:
        served = web.Application(client_max_size=2**26, middlewares=[taken])
        served.router.add_post("/v1/chat/completions", generate)
        served.router.add_post("/v1/completions", generate)
        served.router.add_post("/v1/embeddings", embed)
        runners.append(web.AppRunner(served, access_log=None))
        await runners[0].setup()
        await web.TCPSite(runners[0], "127.0.0.1", 0).start()
        addresses.append(f"http://127.0.0.1:{runners[0].addresses[0][1]}")
        ready.set()

    def live() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runners[0].cleanup())
        loop.close()

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    assert ready.wait(30), "the engine does not come up"
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
