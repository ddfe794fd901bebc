"""Hostile bodies, the same for the same seed: sound ones of every kind with parts changed, and bytes that are none."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

CHAT = {"model": "m", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
_TOOL = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": _TOOL["function"]["parameters"]}}  # type: ignore[index]
_CALLED = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]}  # fmt: skip
SOUND: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {**CHAT, "max_tokens": 5, "temperature": 0}),
    ("/v1/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2, "n": 2, "seed": 1, "stop": ["."]}),
    ("/v1/chat/completions", {**CHAT, "tools": [_TOOL], "tool_choice": "auto", "parallel_tool_calls": False}),
    ("/v1/chat/completions", {**CHAT, "response_format": _SCHEMA}),
    ("/v1/chat/completions", {**CHAT, "messages": [*CHAT["messages"], _CALLED, {"role": "tool", "tool_call_id": "1", "content": "4 C"}]}),
    ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]}),
    ("/v1/completions", {"model": "m", "prompt": "Once upon", "max_tokens": 8, "temperature": 0}),
    ("/v1/completions", {"model": "m", "prompt": "Once upon", "stream": True, "logprobs": 1, "temperature": 0}),
    ("/v1/completions", {"model": "m", "prompt": ["a", "b"], "echo": True, "best_of": 2, "suffix": "x", "logit_bias": {"5": 1}}),
]  # fmt: skip
NAMES = [
    "model",
    "messages",
    "prompt",
    "role",
    "content",
    "n",
    "stream",
    "stream_options",
    "logprobs",
    "top_logprobs",
    "max_tokens",
    "tools",
    "input",
    "usage",
]
TEXTS = [
    "",
    "m",
    "a" * 20_000,
    "\x00\x1f\r\n",
    "é€😀",
    "\ud800",
    "null",
    "-1",
    "../..",
    "%s%n",
    "{{7*7}}",
    "data: [DONE]\n\n",
]
HEADERS = ["x-leanmodel-route", "x-leanmodel-max-cost-usd", "x-leanmodel-min-confidence", "x-session-id", "x-request-id",
           "x-leanmodel-group", "traceparent"]  # fmt: skip
VALUES = ["lean", "large", "0", "0.5", "1", "1e999", "nan", "-1", "1_0", "00-0-0-00", "é", "x" * 200]
KINDS = ("changed", "changed", "changed", "torn", "nested", "other", "bytes")


def odd(lots: random.Random, depth: int = 2) -> Any:
    """Any JSON value, and some that JSON has only in Python."""
    kind = lots.randrange(9 if depth else 7)
    if kind == 0:
        return lots.choice([None, True, False])
    if kind in (1, 2):
        return lots.choice([0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**400, lots.randrange(100)])
    if kind == 3:
        return lots.choice([0.0, -0.0, 1.0, 0.5, 1e308, 5e-324, float("inf"), float("nan")])
    if kind in (4, 5, 6):
        return lots.choice(TEXTS)
    if kind == 7:
        return [odd(lots, depth - 1) for _ in range(lots.randrange(4))]
    return {lots.choice([*NAMES, *TEXTS]): odd(lots, depth - 1) for _ in range(lots.randrange(4))}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, part in inner for place in places(part, (*path, key))]


def changed(lots: random.Random, body: dict[str, Any]) -> dict[str, Any]:
    """A copy with one to three places replaced, removed or doubled, or with a field that nobody knows."""
    found = copy.deepcopy(body)
    for _ in range(lots.randint(1, 3)):
        there = places(found)
        if not there or lots.random() < 0.2:
            found[lots.choice([*NAMES, *TEXTS, "unknown"])] = odd(lots)
            continue
        *way, last = lots.choice(there)
        inside: Any = found
        for key in way:
            inside = inside[key]
        act = lots.randrange(4)
        if act == 0:
            del inside[last]
        elif act == 1 and isinstance(inside, list):
            inside.extend(copy.deepcopy(inside[last]) for _ in range(lots.choice([1, 50])))
        else:
            inside[last] = odd(lots)
    return found


def torn(lots: random.Random, raw: bytes) -> bytes:
    """Bytes with some of them cut, turned or put in."""
    found = bytearray(raw)
    for _ in range(lots.randint(1, 6)):
        at = lots.randrange(len(found) + 1)
        act = lots.randrange(4)
        if act == 0:
            del found[at:]
        elif act == 1:
            found[at : at + 1] = bytes([lots.randrange(256)])
        elif act == 2:
            found[at:at] = lots.choice(
                [b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b'"', b"{", b"]", b"\\u", b"1e", b"NaN"]
            )
        else:
            del found[at : at + lots.randint(1, 8)]
    return bytes(found)


def nested(lots: random.Random) -> bytes:
    """Brackets far deeper than any body has, open or closed."""
    deep = lots.choice([100, 1000, 50_000])
    begin, end = lots.choice([(b"[", b"]"), (b'{"a":', b"}")])
    inner = begin * deep + (b"1" + end * deep if lots.random() < 0.7 else b"")
    return inner if lots.random() < 0.3 else b'{"model":"m","prompt":"p","messages":[{}],"x":' + inner + b"}"


def case(seed: int, number: int) -> tuple[str, str, bytes, dict[str, str]]:
    """The kind, address, body and headers of one request."""
    lots = random.Random(f"{seed}/{number}")
    kind = lots.choice(KINDS)
    path, body = lots.choice(SOUND)
    if kind == "changed":
        raw = json.dumps(changed(lots, body)).encode()
    elif kind == "torn":
        raw = torn(lots, json.dumps(body).encode())
    elif kind == "nested":
        raw = nested(lots)
    elif kind == "other":
        raw = json.dumps(odd(lots, 4)).encode()
    else:
        raw = lots.randbytes(lots.choice([0, 1, 50, 5000]))
    headers = (
        {lots.choice(HEADERS): lots.choice(VALUES) for _ in range(lots.randrange(3))}
        if lots.random() < 0.3
        else {}
    )
    return kind, path, raw, headers
