"""The router's way to the engines: HTTP kept alive, through the node's HAProxy, and nowhere else."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic_core import to_json

from leanmodel_api.router import Backend, RouterLimits

from .errors import NO_REPLICA, ApiError, engine_broken, engine_down, engine_slow
from .lines import EngineResponse, Lines
from .tracing import question
from .wire import Reply, Stream, sent, streamed, whole

# Serve would cancel only its outer task when we hang up, and the generation would go on unheard; with this
# header it leaves the hanging-up to vLLM's own server, which aborts the generation.
_STOP_WITH_US = "x-request-disconnect-disabled"
KEPT_S = 30.0
"""Idle connections end well before HAProxy closes them (90 s), so that none is used while it is closed."""


class Upstream:
    """A pool of connections to the engines."""

    def __init__(self, token: str) -> None:
        """Prepare the pool.

        Args:
            token: what the engines ask for.
        """
        self._lines = Lines(
            {"authorization": f"Bearer {token}", "content-type": "application/json", "accept": "*/*"}, KEPT_S
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._lines.close()

    async def ask(
        self, backend: Backend, path: str, body: dict[str, Any], request_id: str, limits: RouterLimits
    ) -> Reply:
        """Ask for a whole answer.

        Raises:
            ApiError: the engine could not be reached, was too slow, or broke off.
        """
        started = time.perf_counter()
        async with self.raw(backend, "POST", path, to_json(body), request_id, limits) as response:
            return await whole(response, started, limits.whole)

    @asynccontextmanager
    async def stream(
        self, backend: Backend, path: str, body: dict[str, Any], request_id: str, limits: RouterLimits
    ) -> AsyncIterator[Stream | Reply]:
        """Ask for a stream; yields it, or the engine's refusal as a :class:`Reply`.

        Raises:
            ApiError: as :meth:`ask`; also out of the body of the ``with``, when the engine breaks off.
        """
        started, wait = time.perf_counter(), limits.first_byte_timeout
        async with (
            self.raw(backend, "POST", path, to_json(body), request_id, limits, wait) as response,
            streamed(response, backend.revision, started, limits) as found,
        ):
            yield found

    @asynccontextmanager
    async def raw(
        self,
        backend: Backend,
        method: str,
        path: str,
        body: bytes | None,
        request_id: str,
        limits: RouterLimits,
        wait: float | None = None,
    ) -> AsyncIterator[EngineResponse]:
        """Pass a request on as it is; yields the engine's response, its body unread.

        Args:
            wait: seconds until its headers; None is as long as for a whole answer.

        Raises:
            ApiError: as :meth:`ask`; also out of the body of the ``with``, when the engine breaks off.
        """
        url = backend.url.rstrip("/") + path
        wait = limits.whole if wait is None else wait
        with question(backend.revision) as carried:
            headers = {_STOP_WITH_US: "?1", "x-request-id": request_id, **carried}

            async def ask() -> EngineResponse:
                try:
                    return await self._lines.ask(method, url, body, headers, limits.connect_timeout)
                except TimeoutError:
                    raise
                except OSError as error:
                    raise engine_down(backend.revision, "no connection") from error

            async with sent(ask, backend.revision, wait) as response:
                yield response


def from_engine(reply: Reply) -> bool:
    """Return whether a refusal is the engine's own, and not HAProxy's or Serve's."""
    error = (reply.content or {}).get("error")
    return reply.content is not None and not (isinstance(error, dict) and error.get("code") == NO_REPLICA)


def refusal(backend: Backend, reply: Reply) -> ApiError | None:
    """Return the error to answer with when an engine's refusal cannot be passed on as it is.

    Refusals of the request in OpenAI's form are vLLM's own words and pass. An engine that has failed is told in its own
    words too, but as an error of ours, so that somebody else may answer; anything else is HAProxy's or Serve's.
    """
    said = (reply.content or {}).get("error") if from_engine(reply) else None
    said = said if isinstance(said, dict) and isinstance(said.get("message"), str) else None
    if said is not None and reply.status < 500:
        return None
    if said is not None:
        words = said["message"][:1000]
        return ApiError(
            reply.status, words, str(said.get("type") or "api_error"), "engine_error", retry_after=1
        )
    if reply.status == 503 or reply.status == 500:
        return engine_down(backend.revision, f"status {reply.status}")
    if reply.status == 504:
        return engine_slow(backend.revision)
    return engine_broken(backend.revision, f"status {reply.status}")
