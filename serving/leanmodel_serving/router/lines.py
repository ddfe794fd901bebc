"""HTTP/1.1 to the engines over connections that are kept alive: httptools' parser, and around it no more than one hop needs.

A general client spends several times as long on a request as all the rest of it that is ours: addresses, cookies,
redirects, proxies and encodings, none of which an engine on this machine has. Failures are aiohttp's, so that whoever
asks engines and providers tells them alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

import aiohttp
import httptools
from yarl import URL

from .errors import engine_down

MOST_UNREAD = 2**19
"""Bytes of an answer that wait to be read until the engine has to wait."""


class Place(NamedTuple):
    """Where an address lies."""

    host: str
    port: int
    tls: bool
    path: str
    name: str


def inside(host: str) -> bool:
    """Return whether a host is this machine: engines are asked through the node's HAProxy."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@lru_cache(maxsize=256)
def place(url: str) -> Place:
    """Return where an address lies; its path is written as the wire takes it.

    Raises:
        ValueError: it is no address.
    """
    found = URL(url)
    name = f"{found.raw_host}" if ":" not in (found.raw_host or "") else f"[{found.raw_host}]"
    return Place(
        found.raw_host or "", found.port or 80, found.scheme == "https", found.raw_path_qs,
        name if found.is_default_port() else f"{name}:{found.port}",
    )  # fmt: skip


class EngineResponse:
    """An engine's answer; it is its own content.

    Attributes:
        status: HTTP status; 0 until its headers are here.
        headers: by lower-case name; of one that comes twice the last.
    """

    def __init__(self, line: _Line) -> None:
        """Wait for it on a connection."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self._line = line
        self._parts: list[bytes] = []
        self._unread = 0
        self._ended = self._held = self._at_once = False
        self._failed: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    # ---------------------------------------------------------------- reading

    @property
    def content(self) -> EngineResponse:
        """What it is read by."""
        return self

    @property
    def content_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def at_eof(self) -> bool:
        """Say whether all of it is here, and read."""
        return self._ended and not self._parts

    async def headers_here(self) -> None:
        """Return once status and headers are here.

        Raises:
            aiohttp.ServerDisconnectedError: the engine hung up before.
            aiohttp.ClientError: it speaks no HTTP.
        """
        while not self.status:
            await self._news()

    async def readany(self) -> bytes:
        """Return what there is, at least a byte of it; nothing at the end.

        Raises:
            aiohttp.ClientError: the engine broke off.
        """
        while not self._parts and not self._ended:
            await self._news()
        return self._taken()

    async def read(self) -> bytes:
        """Return all that was not read yet.

        Raises:
            aiohttp.ClientError: the engine broke off.
        """
        self._at_once = True
        self._go_on()
        while not self._ended:
            await self._news()
        return self._taken()

    def _taken(self) -> bytes:
        found = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._unread = 0
        self._go_on()
        return found

    def _go_on(self) -> None:
        if self._held:
            self._held = False
            self._line.hold(False)

    async def _news(self) -> None:
        if self._failed is not None:
            raise self._failed
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # ---------------------------------------------------------------- what the connection tells

    def came(self, part: bytes) -> None:
        """Take in a part of the body."""
        self._parts.append(part)
        self._unread += len(part)
        if self._unread > MOST_UNREAD and not self._at_once and not self._held:
            self._held = True
            self._line.hold(True)
        self.wake()

    def ended(self) -> None:
        """Take in that it is whole."""
        self._ended = True
        self.wake()

    def fail(self, why: Exception) -> None:
        """Take in that no more will come; what has come can still be read."""
        if not self._ended and self._failed is None:
            self._failed = why
            self.wake()

    def wake(self) -> None:
        """Wake whoever waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---------------------------------------------------------------- ending

    def close(self) -> None:
        """Hang up: an engine that still works stops."""
        self._line.close()

    def release(self) -> None:
        """Leave the connection to the next request."""
        self._line.release()


class _Line(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, lines: Lines, where: tuple[str, int, bool]) -> None:
        self.where, self.idle_since = where, 0.0
        self._lines = lines
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._response: EngineResponse | None = None
        self._interim = self._over = self._reusable = False

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> EngineResponse:
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._interim = self._over = self._reusable = False
        self._response = EngineResponse(self)
        self._transport.write(request)
        return self._response

    def hold(self, held: bool) -> None:
        if self.is_open and self._transport is not None:
            (self._transport.pause_reading if held else self._transport.resume_reading)()

    def close(self) -> None:
        self._response = None
        if self._transport is not None:
            self._transport.abort()

    def release(self) -> None:
        self._response = None
        if self._reusable and self.is_open:
            self._lines.take_back(self)
        else:
            self.close()

    # ---------------------------------------------------------------- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's is one that writes

    def data_received(self, data: bytes) -> None:
        if self._response is None or self._over:
            self.close()  # it speaks unasked, or goes on after its end
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._reusable = False
            if self._response is not None:
                self._response.fail(aiohttp.ClientPayloadError(type(error).__name__))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, response = None, self._response
        self._lines.forget(self)
        if response is None:
            return
        if not response.status:
            response.fail(aiohttp.ServerDisconnectedError())
        elif exc is None and not {"content-length", "transfer-encoding"} & response.headers.keys():
            response.ended()  # an answer without a length ends with its connection
        else:
            response.fail(aiohttp.ClientPayloadError("the connection was closed in the middle of an answer"))

    # ---------------------------------------------------------------- the parser's calls

    def on_message_begin(self) -> None:
        if self._over:
            self._reusable = False  # an answer that nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is not None and not self._over:
            self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        if self._response is None or self._over:
            return
        status = self._parser.get_status_code()
        self._interim = status < 200  # 100, 103: the answer is still to come
        if self._interim:
            self._response.headers.clear()
            return
        self._response.status = status
        self._response.wake()

    def on_body(self, body: bytes) -> None:
        if self._response is not None and not self._over:
            self._response.came(body)

    def on_message_complete(self) -> None:
        if self._interim or self._over or self._response is None:
            return
        self._over, self._reusable = True, self._parser.should_keep_alive()
        self._response.ended()


class Lines:
    """Connections by where they lead; as many as are needed, and none that leaves this machine."""

    def __init__(self, headers: Mapping[str, str], keep_s: float) -> None:
        """Open nothing yet.

        Args:
            headers: of each request.
            keep_s: seconds that a connection waits for its next request.
        """
        self._idle: dict[tuple[str, int, bool], list[_Line]] = {}
        self._all: set[_Line] = set()
        self._headers, self._keep_s = _written(headers), keep_s

    async def close(self) -> None:
        """Close all connections."""
        for line in list(self._all):
            line.close()
        self._all.clear()
        self._idle.clear()

    async def ask(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], connect: float
    ) -> EngineResponse:
        """Send a request; return the answer once its headers are here.

        Args:
            connect: seconds until a new connection stands.

        Raises:
            ApiError: the address is on another machine.
            OSError: no connection, or not in time.
            aiohttp.ClientError: the engine hung up, or speaks no HTTP.
            ValueError: a header that no wire takes.
        """
        where = place(url)
        request = (
            f"{method} {where.path} HTTP/1.1\r\nhost: {where.name}\r\n{self._headers}{_written(headers)}"
            f"content-length: {len(body or b'')}\r\n\r\n"
        ).encode("latin-1") + (body or b"")
        line = self._kept(where) or await self._new(where, connect)
        response = line.ask(request)
        try:
            await response.headers_here()
        except BaseException:
            line.close()
            raise
        return response

    def take_back(self, line: _Line) -> None:
        """Keep a connection for the next request."""
        line.idle_since = asyncio.get_running_loop().time()
        self._idle.setdefault(line.where, []).append(line)

    def forget(self, line: _Line) -> None:
        """Drop a connection that is closed."""
        self._all.discard(line)
        kept = self._idle.get(line.where)
        if kept is not None and line in kept:
            kept.remove(line)

    def _kept(self, where: Place) -> _Line | None:
        """Return the connection that was used last; one that has waited too long is closed, and all before it."""
        kept = self._idle.get(where[:3])
        oldest = asyncio.get_running_loop().time() - self._keep_s
        while kept:
            line = kept.pop()
            if line.idle_since >= oldest and line.is_open:
                return line
            line.close()
        return None

    async def _new(self, where: Place, connect: float) -> _Line:
        if not inside(where.host):  # whatever the settings call an engine
            raise engine_down(where.host[:63], "engines are on this machine, and this is another")
        async with asyncio.timeout(connect):
            _, line = await asyncio.get_running_loop().create_connection(
                lambda: _Line(self, where[:3]), where.host, where.port, ssl=True if where.tls else None
            )
        self._all.add(line)
        return line


def _written(headers: Mapping[str, str]) -> str:
    """Return headers as they stand on the wire.

    Raises:
        ValueError: one of them holds a line's end.
    """
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if text.count("\r") != len(headers) or text.count("\n") != len(headers):
        raise ValueError("a header holds the end of a line")
    return text
