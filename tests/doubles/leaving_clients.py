"""Clients that send a request, or half of one, and go: by a close, a reset, or by closing half."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct

from fault_run import body
from router_running import Running

WAYS = ("close", "reset", "half-close")
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def asked(router: Running, prompt: str, stream: bool, cut: int | None = None) -> Client:
    """Send a request, or so many bytes of its body."""
    raw = json.dumps(body(prompt, stream)).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(raw)}\r\n\r\n".encode()
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    own.setblocking(False)
    await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", int(router.url.rpartition(":")[2])))
    reader, writer = await asyncio.open_connection(sock=own, limit=2**16)
    writer.write(head + raw[:cut])
    await writer.drain()
    return reader, writer


async def leave(client: Client, way: str) -> None:
    """Go: politely, by a reset, or by saying that nothing more is sent, and reading on."""
    reader, writer = client
    if way == "half-close":
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(
                reader.read(-1), 20
            )  # the router closes too: it is not waited for for ever
    if way == "reset":
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
