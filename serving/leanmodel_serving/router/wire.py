"""One exchange over HTTP, with an engine or a provider: sent, waited for, read, and its failures given names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import aiohttp
from pydantic_core import from_json

from leanmodel_api.external import Patience

from .errors import engine_broken, engine_down, engine_slow
from .sse import EventReader


class Content(Protocol):
    """What an answer's body is read by."""

    async def readany(self) -> bytes:
        """Return what there is, nothing at the end."""

    def at_eof(self) -> bool:
        """Say whether all of it is read."""


class Response(Protocol):
    """An answer whose headers are here: aiohttp's from a provider, ours from an engine."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers, by names in lower case."""

    @property
    def content_type(self) -> str:
        """The media type, without parameters."""

    @property
    def content(self) -> Content:
        """The body."""

    async def read(self) -> bytes:
        """Return the rest of the body."""

    def close(self) -> None:
        """Hang up."""

    def release(self) -> Any:
        """Leave the connection to the next request."""


R = TypeVar("R", bound=Response)


@dataclass
class Reply:
    """A whole answer of a backend.

    Attributes:
        status: HTTP status.
        body: as it came.
        content: the body parsed, None where it is not a JSON object.
        seconds: from sending to the last byte.
        retry_after: the header Retry-After, empty where there is none.
    """

    status: int
    body: bytes
    content: dict[str, Any] | None
    seconds: float
    retry_after: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is an answer and not an error."""
        return self.status == 200 and self.content is not None


class Stream:
    """A backend's answer in events."""

    def __init__(self, response: Response, name: str, patience: Patience, started: float) -> None:
        """Wrap a response whose headers have come; ``started`` is when it was asked for."""
        self._response, self._name, self._patience, self.started = response, name, patience, started

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """Yield the data of the events, ``[DONE]`` included, as many together as have come together.

        Comments are no events: a backend that only keeps the connection alive is one that is silent.

        Raises:
            ApiError: the backend broke off, or fell silent.
        """
        reader = EventReader()
        until = self.started + self._patience.first_byte_timeout
        while True:
            try:
                async with asyncio.timeout(until - time.perf_counter()):
                    piece = await self._response.content.readany()
            except TimeoutError as error:
                raise engine_slow(self._name) from error
            except aiohttp.ClientError as error:
                raise engine_broken(self._name, type(error).__name__) from error
            if not piece:
                return
            if found := reader.feed(piece):
                yield found
                until = time.perf_counter() + self._patience.idle_timeout


async def pieces(response: Response, name: str, first: float, idle: float) -> AsyncIterator[bytes]:
    """Yield a response's bytes as they come: the first within ``first`` seconds, each other within ``idle``.

    Raises:
        ApiError: the backend broke off, or fell silent.
    """
    patience = first
    while True:
        try:
            async with asyncio.timeout(patience):
                piece = await response.content.readany()
        except TimeoutError as error:
            raise engine_slow(name) from error
        except aiohttp.ClientError as error:
            raise engine_broken(name, type(error).__name__) from error
        if not piece:
            return
        patience = idle
        yield piece


@asynccontextmanager
async def sent(ask: Callable[[], Awaitable[R]], name: str, wait: float, tries: int = 2) -> AsyncIterator[R]:
    """Send a request; yields the response, its body unread.

    Args:
        ask: sends it, and returns once the response's headers are here; it follows no redirect.
        name: of the backend, for errors.
        wait: seconds until its headers have come, whatever it accepts before.
        tries: 2 asks once more where a connection that was kept alive is closed under us; for a backend that bills by
            the request it is 1, since nobody can say whether it had begun.

    Raises:
        ApiError: it could not be reached, was too slow, or broke off; also out of the body of the ``with``.
    """
    for attempt in range(1, tries + 1):
        response: R | None = None
        try:
            async with asyncio.timeout(wait):
                response = await ask()
            yield response
            return
        except aiohttp.ServerDisconnectedError as error:
            # A connection that was kept alive and closed under us: nothing was answered, ask once more.
            if response is not None or attempt == tries:
                raise engine_broken(name, "it hung up") from error
        except aiohttp.ClientConnectorError as error:
            raise engine_down(name, "no connection") from error
        except TimeoutError as error:
            raise engine_slow(name) from error
        except aiohttp.ClientError as error:
            raise engine_broken(name, type(error).__name__) from error
        finally:
            if response is not None:
                response.close() if not response.content.at_eof() else response.release()


async def whole(response: Response, started: float, wait: float) -> Reply:
    """Read the rest of a response.

    Args:
        started: when it was asked for.
        wait: seconds from then until its end.

    Raises:
        TimeoutError: it was not over then.
    """
    async with asyncio.timeout(started + wait - time.perf_counter()):
        raw = await response.read()
    retry_after = response.headers.get("retry-after", "")
    return Reply(response.status, raw, json_object(raw), time.perf_counter() - started, retry_after)


@asynccontextmanager
async def streamed(
    response: Response, name: str, started: float, patience: Patience
) -> AsyncIterator[Stream | Reply]:
    """Yield a response as a stream, or as the refusal that it is."""
    if response.status == 200 and response.content_type == "text/event-stream":
        yield Stream(response, name, patience, started)
    else:
        yield await whole(response, started, patience.whole)


def json_object(raw: bytes) -> dict[str, Any] | None:
    """Return bytes as a JSON object, None where they are none."""
    try:
        content = from_json(raw)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
