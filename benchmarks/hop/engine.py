"""A mock engine that is no limit: raw asyncio, answers made once, tokens told by the clock.

It answers in vLLM's forms, at once where no stream is asked for; a stream's first token comes after FIRST_S, each other
one EVERY_S later. Each answer holds the number that the request was asked with, so that whoever asked can tell a wrong one.
Run: python -m hop.engine PORT
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

import uvloop

FIRST_S, EVERY_S, TOKENS = 0.25, 0.1, 24
PROMPT_TOKENS, LOGPROB = 32, -0.05
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_NUMBER = re.compile(rb"number (\d+)")


def tokens(number: int) -> list[str]:
    """Return the answer to the request of a number, token by token."""
    return [f"{number}:", *(f" word{index}" for index in range(TOKENS - 1))]


def logprobs(token: str) -> dict[str, object]:
    """Return a token's log-probabilities as the chat endpoint tells them."""
    best = [
        {"token": token, "logprob": LOGPROB, "bytes": None},
        {"token": "x", "logprob": -4.0, "bytes": None},
    ]
    return {**best[0], "top_logprobs": best}


def usage(completion: int) -> dict[str, int]:
    """Return OpenAI's usage object."""
    return {
        "prompt_tokens": PROMPT_TOKENS, "completion_tokens": completion, "total_tokens": PROMPT_TOKENS + completion,
    }  # fmt: skip


class Written:
    """All that the engine can say, with a hole where the request's number and model go."""

    NUMBER, MODEL = b"4711471147114711", b"model-to-be-named"

    def __init__(self, judged: bool) -> None:
        """Write it once; ``judged``: with log-probabilities."""
        said = tokens(int(self.NUMBER))
        told = {"content": [logprobs(token) for token in said]} if judged else None
        head = {"id": "chatcmpl-" + "0" * 32, "created": 1_790_000_000, "model": self.MODEL.decode()}
        message = {"role": "assistant", "content": "".join(said)}
        choice = {"index": 0, "message": message, "logprobs": told, "finish_reason": "stop"}
        self.whole = json.dumps(
            {**head, "object": "chat.completion", "choices": [choice], "usage": usage(TOKENS)},
            separators=(",", ":"),
        ).encode()
        head["object"] = "chat.completion.chunk"
        self.chunks = []
        for index, token in enumerate(said):
            delta = {"role": "assistant", "content": token} if index == 0 else {"content": token}
            part = {"index": 0, "delta": delta, "finish_reason": "stop" if index == TOKENS - 1 else None}
            part["logprobs"] = {"content": [logprobs(token)]} if judged else None
            self.chunks.append(json.dumps({**head, "choices": [part]}, separators=(",", ":")).encode())
        self.last = json.dumps(
            {**head, "choices": [], "usage": usage(TOKENS)}, separators=(",", ":")
        ).encode()

    def filled(self, text: bytes, number: bytes, model: bytes) -> bytes:
        """Return one of its texts as the answer to a request."""
        return text.replace(self.NUMBER, number).replace(self.MODEL, model)


WRITTEN = {judged: Written(judged) for judged in (False, True)}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n%s\r\n\r\n"
STREAM_HEAD = HEAD % (b"text/event-stream; charset=utf-8", b"transfer-encoding: chunked")


class Connection(asyncio.Protocol):
    """One connection, kept alive; one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin."""
        self._loop, self._buffer = loop, b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport | object)
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop talking."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take in a request, and answer it once it is whole."""
        self._buffer += data
        head, mark, rest = self._buffer.partition(b"\r\n\r\n")
        found = _LENGTH.search(head) if mark else None
        size = int(found[1]) if found else 0
        if mark and len(rest) >= size:
            self._buffer = rest[size:]
            self._answer(rest[:size])

    def _answer(self, raw: bytes) -> None:
        assert self._transport is not None
        body = json.loads(raw) if raw else {}
        found = _NUMBER.search(raw)
        number = found[1] if found else b"0"
        written = WRITTEN[bool(body.get("logprobs"))]
        model = str(body.get("model")).encode()
        if not body.get("stream"):
            whole = written.filled(written.whole, number, model)
            self._transport.write(HEAD % (b"application/json", b"content-length: %d" % len(whole)) + whole)
            return
        self._transport.write(STREAM_HEAD)
        texts = [written.filled(text, number, model) for text in written.chunks]
        if (body.get("stream_options") or {}).get("include_usage"):
            texts.append(written.filled(written.last, number, model))
        events = [b"data: %s\n\n" % text for text in (*texts, b"[DONE]")]
        # The last token, the usage and the end come together, as an engine sends them.
        whole = [*events[: TOKENS - 1], b"".join(events[TOKENS - 1 :])]
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in whole]
        pieces[-1] += b"0\r\n\r\n"
        begun = self._loop.time()
        self._timer = self._loop.call_at(begun + FIRST_S, self._say, iter(pieces), begun + FIRST_S)

    def _say(self, pieces: object, due: float) -> None:
        piece = next(pieces, None)  # type: ignore[call-overload]
        if piece is not None and self._transport is not None:
            self._transport.write(piece)
            self._timer = self._loop.call_at(due + EVERY_S, self._say, pieces, due + EVERY_S)


async def serve(port: int) -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(loop), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
