"""The little of ASGI that the router needs: read a body with a bound, answer once, answer in pieces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from .errors import ApiError
from .sse import DONE, event

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


_PRINTABLE = bytes(code if code >= 0x20 and code != 0x7F else ord("?") for code in range(256))


def _header_value(text: str) -> bytes:
    """Return a header's value as the wire takes it: what a client wrote (a field's name, say) may stand in it."""
    return text.encode("latin-1", "replace").translate(_PRINTABLE).strip()


class ClientGone(Exception):  # noqa: N818 - not an error of ours
    """The client hung up."""


def header(scope: Scope, name: bytes) -> str:
    """Return a request header's value, empty when it is not there."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return ""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read the request's body.

    Raises:
        ApiError: 413, it is longer than ``limit`` bytes.
        ClientGone: the client hung up meanwhile.
    """
    length = header(scope, b"content-length")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body is longer than {limit} bytes; send less", code="request_too_large")


class Answer:
    """One answer on its way; remembers whether it began, and how many pieces of it were sent.

    A stream that is long in coming may be kept alive before it begins (:meth:`keep_alive`): 200 and the content type are
    out then and cannot be taken back, but nothing of an answer is, so whoever answers is still open. What the headers
    would have said goes out as comments, and an error as an event.
    """

    def __init__(self, send: Send) -> None:
        """Wrap ASGI's send."""
        self._send = send
        self.status = self.events = 0
        self.finished = self.kept_alive = False
        self._since = 0.0
        self.turn = asyncio.Lock()
        """Held while something is sent before the answer has begun: two tasks may."""

    @property
    def begun(self) -> bool:
        """Whether something of an answer, or its status and headers, are out, and so cannot be taken back."""
        return self.status != 0

    async def keep_alive(self, headers: Mapping[str, str]) -> None:
        """Send a comment, after status and headers where that is the first; nothing once the answer has begun."""
        async with self.turn:
            if self.begun:
                return
            if not self.kept_alive:
                self.kept_alive = True
                await self._head(200, EVENTS, headers)
            await self._piece(b": waiting\n\n")

    async def start(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        """Send status and headers."""
        async with self.turn:
            self.status = status
            if not self.kept_alive:
                await self._head(status, content_type, headers)
            else:
                lines = (
                    b": " + name.encode() + b": " + _header_value(value) for name, value in headers.items()
                )
                await self._piece(b"\n".join(lines) + b"\n\n")

    def waited(self) -> float:
        """Return for how many seconds the client has taken nothing of what is to be sent; 0 where nothing waits."""
        return time.monotonic() - self._since if self._since else 0.0

    async def _out(self, message: MutableMapping[str, Any]) -> None:
        self._since = time.monotonic()
        try:
            await self._send(message)
        finally:
            self._since = 0.0

    async def _piece(self, data: bytes) -> None:
        await self._out({"type": "http.response.body", "body": data, "more_body": True})

    async def _head(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        lines = [(b"content-type", content_type.encode())]
        lines += [(name.encode(), _header_value(value)) for name, value in headers.items()]
        await self._out({"type": "http.response.start", "status": status, "headers": lines})

    async def write(self, data: bytes, events: int = 1) -> None:
        """Send a piece of the body, which is so many events."""
        self.events += events
        await self._piece(data)

    async def end(self) -> None:
        """Send the end of the body."""
        self.finished = True
        await self._out({"type": "http.response.body", "body": b"", "more_body": False})

    async def break_off(self, error: ApiError) -> None:
        """End a stream that has begun with an error event; metrics and log tell its status, the client saw a 200."""
        self.status = error.status
        await self.write(event(error.body()))
        await self.write(event(DONE))
        await self.end()

    async def whole(
        self, status: int, body: bytes, headers: Mapping[str, str], content_type: str = JSON
    ) -> None:
        """Send status, headers and the whole body; in a stream that was kept alive it is an event, and the last."""
        if self.kept_alive:
            await self.start(status, content_type, headers)
            body = event(b"\ndata: ".join(body.splitlines())) + event(DONE)
        else:
            await self.start(status, content_type, {**headers, "content-length": str(len(body))})
        self.finished = True
        await self._out({"type": "http.response.body", "body": body, "more_body": False})

    async def error(self, error: ApiError, headers: Mapping[str, str]) -> None:
        """Send an error, with Retry-After where it knows one."""
        extra = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        await self.whole(error.status, error.body(), {**headers, **extra, **error.headers})
