"""The router's way to the engines: HTTP kept alive, through the node's HAProxy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic_core import from_json, to_json

from leanmodel_api.router import Backend, RouterLimits

from .errors import ApiError, engine_broken, engine_down, engine_slow
from .sse import events

# Serve would cancel only its outer task when we hang up, and the generation would go on unheard; with this
# header it leaves the hanging-up to vLLM's own server, which aborts the generation.
_STOP_WITH_US = ("x-request-disconnect-disabled", "?1")


@dataclass
class Reply:
    """A whole answer of an engine.

    Attributes:
        status: HTTP status.
        body: as it came.
        content: the body parsed, None where it is not a JSON object.
        seconds: from sending to the last byte.
    """

    status: int
    body: bytes
    content: dict[str, Any] | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it is an answer and not an error."""
        return self.status == 200 and self.content is not None


class Stream:
    """An engine's answer in events."""

    def __init__(
        self, response: aiohttp.ClientResponse, revision: str, limits: RouterLimits, started: float
    ) -> None:
        """Wrap a response whose headers have come."""
        self._response, self._revision, self._limits, self.started = response, revision, limits, started

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the data of each event, ``[DONE]`` included.

        Raises:
            ApiError: the engine broke off, or fell silent.
        """
        async for data in events(pieces(self._response, self._revision, self._limits)):
            yield data


async def pieces(
    response: aiohttp.ClientResponse, revision: str, limits: RouterLimits
) -> AsyncIterator[bytes]:
    """Yield a response's bytes as they come: the first within ``first_byte_timeout``, others ``idle_timeout``.

    Raises:
        ApiError: the engine broke off, or fell silent.
    """
    patience = limits.first_byte_timeout
    while True:
        try:
            async with asyncio.timeout(patience):
                piece = await response.content.readany()
        except TimeoutError as error:
            raise engine_slow(revision) from error
        except aiohttp.ClientError as error:
            raise engine_broken(revision, type(error).__name__) from error
        if not piece:
            return
        patience = limits.idle_timeout
        yield piece


class Upstream:
    """A pool of connections to the engines."""

    def __init__(self, token: str) -> None:
        """Prepare the pool; must be called inside the event loop.

        Args:
            token: what the engines ask for.
        """
        # Idle connections end well before HAProxy closes them (90 s), so that none is used while it is closed.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0),
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
            auto_decompress=False,
            read_bufsize=2**18,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def ask(
        self, backend: Backend, path: str, body: dict[str, Any], request_id: str, limits: RouterLimits
    ) -> Reply:
        """Ask for a whole answer.

        Raises:
            ApiError: the engine could not be reached, was too slow, or broke off.
        """
        started = time.perf_counter()
        async with self.raw(backend, "POST", path, to_json(body), request_id, limits) as response:
            raw = await _rest(response, limits)
            status = response.status
        return Reply(status, raw, _json_object(raw), time.perf_counter() - started)

    @asynccontextmanager
    async def stream(
        self, backend: Backend, path: str, body: dict[str, Any], request_id: str, limits: RouterLimits
    ) -> AsyncIterator[Stream | Reply]:
        """Ask for a stream; yields it, or the engine's refusal as a :class:`Reply`.

        Raises:
            ApiError: as :meth:`ask`; also out of the body of the ``with``, when the engine breaks off.
        """
        started = time.perf_counter()
        async with self.raw(backend, "POST", path, to_json(body), request_id, limits) as response:
            if response.status == 200 and response.content_type == "text/event-stream":
                yield Stream(response, backend.revision, limits, started)
            else:
                raw = await _rest(response, limits)
                yield Reply(response.status, raw, _json_object(raw), time.perf_counter() - started)

    @asynccontextmanager
    async def raw(
        self,
        backend: Backend,
        method: str,
        path: str,
        body: bytes | None,
        request_id: str,
        limits: RouterLimits,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Pass a request on as it is; yields the engine's response, its body unread.

        Raises:
            ApiError: as :meth:`ask`; also out of the body of the ``with``, when the engine breaks off.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_timeout)
        headers = dict((_STOP_WITH_US, ("x-request-id", request_id)))
        url = backend.url.rstrip("/") + path
        for attempt in (1, 2):
            response: aiohttp.ClientResponse | None = None
            try:
                # An engine may accept the connection and never send its headers.
                async with asyncio.timeout(limits.first_byte_timeout):
                    response = await self._session.request(
                        method, url, data=body, headers=headers, timeout=timeout
                    )
                yield response
                return
            except aiohttp.ServerDisconnectedError as error:
                # A connection that was kept alive and closed under us: nothing was answered, ask once more.
                if response is not None or attempt == 2:
                    raise engine_broken(backend.revision, "it hung up") from error
            except aiohttp.ClientConnectorError as error:
                raise engine_down(backend.revision, "no connection") from error
            except TimeoutError as error:
                raise engine_slow(backend.revision) from error
            except aiohttp.ClientError as error:
                raise engine_broken(backend.revision, type(error).__name__) from error
            finally:
                if response is not None:
                    response.close() if not response.content.at_eof() else response.release()


async def _rest(response: aiohttp.ClientResponse, limits: RouterLimits) -> bytes:
    async with asyncio.timeout(limits.idle_timeout):
        return await response.read()


def refusal(backend: Backend, reply: Reply) -> ApiError | None:
    """Return the error to answer with when an engine's refusal cannot be passed on as it is.

    Refusals in OpenAI's form are vLLM's own words and pass; anything else is HAProxy's or Serve's.
    """
    if reply.content is not None and isinstance(reply.content.get("error"), dict):
        return None
    if reply.status == 503 or reply.status == 500:
        return engine_down(backend.revision, f"status {reply.status}")
    if reply.status == 504:
        return engine_slow(backend.revision)
    return engine_broken(backend.revision, f"status {reply.status}")


def _json_object(raw: bytes) -> dict[str, Any] | None:
    try:
        content = from_json(raw)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
