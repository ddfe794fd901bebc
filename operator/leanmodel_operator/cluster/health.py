"""``/healthz``, ``/readyz`` and ``/metrics``: three addresses need no web framework."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

_LIMIT_SECONDS = 5.0


class Health:
    """A small HTTP server."""

    def __init__(
        self, healthy: Callable[[], str], ready: Callable[[], str], metrics: Callable[[], bytes]
    ) -> None:
        """Take whom to ask.

        Args:
            healthy: returns why this process should be started again; empty when it is well.
            ready: returns why it is not ready; empty when it is.
            metrics: returns the metrics as text.
        """
        self._healthy, self._ready, self._metrics = healthy, ready, metrics
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; ``self.port`` says where."""
        self._server = await asyncio.start_server(self._answer, host, port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_LIMIT_SECONDS):
                request = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
                path = request[1].decode("ascii", "replace").partition("?")[0] if len(request) > 1 else ""
                status, kind, text = self._page(request[0].decode("ascii", "replace"), path)
                head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
                writer.write(head.encode() + text)
                await writer.drain()
        writer.close()

    def _page(self, method: str, path: str) -> tuple[str, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if method != "GET":
            return "405 Method Not Allowed", plain, b"GET only\n"
        if path == "/metrics":
            return "200 OK", "text/plain; version=0.0.4; charset=utf-8", self._metrics()
        checks = {"/healthz": self._healthy, "/readyz": self._ready}
        if path not in checks:
            return "404 Not Found", plain, b"/healthz, /readyz or /metrics\n"
        problem = checks[path]()
        return (
            ("503 Service Unavailable", plain, f"{problem}\n".encode())
            if problem
            else ("200 OK", plain, b"ok\n")
        )
