"""A load generator: so many clients, each with one connection, each asks again as soon as it is answered; or a burst of streams.

Every answer is held against what the engine must have said. Run: python -m hop.load URL KEY MODEL whole CLIENTS SECONDS, or
… streams CLIENTS BURSTS; prints one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools
import uvloop

from .engine import TOKENS, tokens

WARM_S = 1.0
PATIENCE_S = 120.0
LONG = "Please read this short text and answer it in one sentence. " * 4
"""Before every second prompt; a policy that looks at prompts sends one half to the lean model and one to the large one."""


class Client(asyncio.Protocol):
    """One connection; the future of :meth:`ask` is done when the answer is whole."""

    def __init__(self) -> None:
        """Begin."""
        self._parser: Any = None
        self._transport: Any = None
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = transport

    def ask(self, raw: bytes) -> asyncio.Future[None]:
        """Send a request."""
        self._parser = httptools.HttpResponseParser(self)
        self.body, self.first, self.last, self.keeps = bytearray(), 0.0, 0.0, True
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(raw)
        return self._done

    @property
    def status(self) -> int:
        """The answer's HTTP status."""
        return int(self._parser.get_status_code())

    def data_received(self, data: bytes) -> None:
        """Take in what came."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the answer, and when the first one came."""
        if not self.first:
            self.first = time.perf_counter()
        self.body += body

    def on_message_complete(self) -> None:
        """Be done."""
        self.last, self.keeps = time.perf_counter(), self._parser.should_keep_alive()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so to whoever waits."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionResetError("hung up"))

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


class Asking:
    """What is asked, of whom."""

    def __init__(self, url: str, key: str, model: str, stream: bool) -> None:
        """Prepare requests for an address."""
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        self._key, self._model, self._stream = key, model, stream
        self._numbers = itertools.count(1)

    def request(self) -> tuple[int, bytes]:
        """Return the next request and its number."""
        number = next(self._numbers)
        messages = [
            {"role": "system", "content": "You are brief."},
            {"role": "user", "content": f"{LONG if number % 2 else ''}This is number {number}."},
        ]
        asked = {"model": self._model, "messages": messages, "max_tokens": TOKENS, "temperature": 0}
        if self._stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps(asked).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self.host}:{self.port}\r\nauthorization: Bearer {self._key}\r\n"
            f"content-type: application/json\r\naccept: */*\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return number, head.encode() + body

    async def connected(self) -> Client:
        """Return a client with its connection open."""
        _, client = await asyncio.get_running_loop().create_connection(Client, self.host, self.port)
        return client


def whole_fault(status: int, body: bytes, number: int) -> str:
    """Return what is wrong with a whole answer; empty when nothing is."""
    if status != 200:
        return f"status {status}: {bytes(body[:200])!r}"
    said = json.dumps("".join(tokens(number))).encode()  # its quotes too: 7 is an end of 17
    return "" if said in body else f"not the answer to {number}: {bytes(body[:200])!r}"


def stream_fault(status: int, body: bytes, number: int) -> str:
    """Return what is wrong with a stream: any token that is not the engine's, a missing usage, a missing end."""
    if status != 200:
        return f"status {status}: {bytes(body[:200])!r}"
    said, used, done = "", 0, False
    for event in bytes(body).split(b"\n\n"):
        data = event.removeprefix(b"data: ")
        if data == b"[DONE]":
            done = True
        elif event.startswith(b"data:"):
            chunk = json.loads(data)
            said += "".join(
                (choice.get("delta") or {}).get("content") or "" for choice in chunk.get("choices", ())
            )
            used = (chunk.get("usage") or {}).get("completion_tokens") or used
    if said != "".join(tokens(number)):
        return f"not the answer to {number}: {said[:100]!r} of {len(body)} bytes"
    return "" if done and used == TOKENS else f"number {number}: ended {done}, {used} tokens in its usage"


async def whole(asking: Asking, clients: int, seconds: float) -> dict[str, Any]:
    """Ask for whole answers for some seconds, after a second that does not count."""
    begun = time.perf_counter() + WARM_S
    ends, took, wrong = begun + seconds, list[float](), Counter[str]()
    answers = itertools.count()

    async def one() -> None:
        client = await asking.connected()
        while (sent := time.perf_counter()) < ends:
            number, raw = asking.request()
            sent = time.perf_counter()
            await client.ask(raw)
            if sent >= begun and client.last <= ends:
                took.append(client.last - sent)
            next(answers)
            fault = whole_fault(client.status, client.body, number)
            if fault:
                wrong[fault[:60]] += 1
            if not client.keeps:
                client.close()
                client = await asking.connected()
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    counted = {"answers": len(took), "all_answers": next(answers)}
    return {**counted, "per_second": len(took) / seconds, **told("took", took), "wrong": wrong}


@dataclass
class Burst:
    """Streams that were begun at once: seconds until each one's first event and its end, and what came."""

    firsts: list[float] = field(default_factory=list)
    lasts: list[float] = field(default_factory=list)
    read: list[tuple[int, int, bytearray]] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    begun: float = field(default_factory=time.perf_counter)

    async def one(self, asking: Asking, kept: dict[int, Client], index: int) -> None:
        """Ask for one stream, on the connection of its number where that is open still."""
        number, raw = asking.request()
        try:
            async with asyncio.timeout(PATIENCE_S):
                client = kept.pop(index, None) or await asking.connected()
                await client.ask(raw)
        except (OSError, TimeoutError) as error:
            self.wrong[repr(error)[:60]] += 1
            return
        if client.keeps:
            kept[index] = client
        self.firsts.append(client.first - self.begun)
        self.lasts.append(client.last - self.begun)
        self.read.append((client.status, number, client.body))

    def found(self) -> dict[str, Any]:
        """Return times and faults; every byte is looked at now, when nobody's time is taken."""
        for status, number, body in self.read:
            if fault := stream_fault(status, bytes(body), number):
                self.wrong[fault[:60]] += 1
        return {**told("first", self.firsts), **told("last", self.lasts), "wrong": self.wrong}


async def streams(asking: Asking, clients: int, bursts: int) -> dict[str, Any]:
    """Open so many connections and ask for a stream on each at once; a second burst finds the connections open."""
    found, kept = dict[str, Any](), dict[int, Client]()
    for name in ("first", "second")[:bursts]:
        burst = Burst()
        await asyncio.gather(*(burst.one(asking, kept, index) for index in range(clients)))
        found[name] = {"asked": clients, **burst.found()}
    return found


def told(name: str, values: list[float]) -> dict[str, float]:
    """Return median and 99th percentile in milliseconds."""
    ordered = sorted(values) or [float("nan")]
    return {
        f"{name}_p{share}": 1e3 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 99)
    }  # fmt: skip


def main(url: str, key: str, model: str, kind: str, clients: str, seconds: str) -> None:
    """Run one load and print what was found."""
    asking = Asking(url, key, model, kind == "streams")
    gc.disable()  # a pause of the collector would be the router's latency
    if kind == "streams":
        print(json.dumps(uvloop.run(streams(asking, int(clients), int(seconds)))))
    else:
        print(json.dumps(uvloop.run(whole(asking, int(clients), float(seconds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
