"""The little of ASGI that the router needs: read a body with a bound, answer once, answer in pieces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from .errors import ApiError

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
    """One answer on its way; remembers whether it began, and how many pieces of it were sent."""

    def __init__(self, send: Send) -> None:
        """Wrap ASGI's send."""
        self._send = send
        self.status = self.events = 0
        self.finished = False

    @property
    def begun(self) -> bool:
        """Whether status and headers are out, and so cannot be taken back."""
        return self.status != 0

    async def start(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        """Send status and headers."""
        self.status = status
        lines = [(b"content-type", content_type.encode())]
        lines += [(name.encode(), _header_value(value)) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        self.events += 1
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """Send the end of the body."""
        self.finished = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def whole(
        self, status: int, body: bytes, headers: Mapping[str, str], content_type: str = JSON
    ) -> None:
        """Send status, headers and the whole body."""
        await self.start(status, content_type, {**headers, "content-length": str(len(body))})
        self.finished = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def error(self, error: ApiError, headers: Mapping[str, str]) -> None:
        """Send an error, with Retry-After where it knows one."""
        extra = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        await self.whole(error.status, error.body(), {**headers, **extra, **error.headers})
