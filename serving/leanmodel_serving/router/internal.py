"""The internal route: one named revision, asked as it is, dark ones included. For proving; never for users."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from pydantic_core import from_json, to_json

from .ask import PATHS
from .errors import ApiError, engine_broken, engine_down, not_found
from .http import EVENTS, Answer
from .snapshot import Snapshot
from .sse import DONE, event
from .upstream import Upstream, from_engine
from .wire import pieces, whole

_LAST = event(DONE).rstrip()
PREFIX = "/internal/revisions/"
_POST = frozenset(PATHS.values())
_GET = frozenset(("/v1/models", "/health", "/metrics"))


async def ask_revision(
    upstream: Upstream, state: Snapshot, path: str, method: str, body: bytes, answer: Answer, request_id: str
) -> None:
    """Pass a request on to the revision that its path names.

    Args:
        upstream: connections to the engines.
        state: settings in force.
        path: ``/internal/revisions/<revision>/v1/...``.
        method: POST for generations, GET for models, health and metrics of the engine.
        body: the request's body; its ``model`` is set to the revision.
        answer: where the engine's answer goes, byte for byte; a stream that breaks off ends with an error event, and
            of any other answer nothing is sent before all of it is there.
        request_id: name in headers and logs.

    Raises:
        ApiError: 404 for an unknown revision or path, 400 for a body that is no object; 5xx as on the public route.
    """
    revision, _, rest = path.removeprefix(PREFIX).partition("/")
    rest = f"/{rest}"
    backend = state.settings.backend(revision) if path.startswith(PREFIX) else None
    if backend is None:
        if not path.startswith(PREFIX):
            raise not_found(path)
        known = ", ".join(item.revision for item in state.settings.backends())
        raise ApiError(
            404, f"there is no revision {revision[:63]!r}; there are {known}", code="revision_not_found"
        )
    if rest not in (_POST if method == "POST" else _GET if method == "GET" else ()):
        raise not_found(path)
    payload = None
    if method == "POST":
        content = _object(body)
        content["model"] = revision
        payload = to_json(content)
    headers = {"x-leanmodel-revision": revision, "x-leanmodel-request-id": request_id}
    limits, started = state.settings.limits, time.perf_counter()
    async with upstream.raw(backend, method, rest, payload, request_id, limits) as response:
        kind = response.headers.get("content-type", "application/octet-stream")
        if response.content_type != "text/event-stream":
            found = await whole(response, started, limits.whole)
            if found.status >= 500 and not from_engine(found):
                raise engine_down(revision, f"status {found.status}")
            await answer.whole(found.status, found.body, headers, kind)
            return
        await answer.start(response.status, EVENTS, headers)
        await _lines(answer, pieces(response, revision, limits.whole, limits.idle_timeout), revision)


async def _lines(answer: Answer, chunks: AsyncIterator[bytes], revision: str) -> None:
    """Pass a stream on in whole lines, so that an error event can follow wherever it breaks off."""
    rest, last = b"", b""
    try:
        async for chunk in chunks:
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                last = (last + lines).rstrip()[-len(_LAST) :]
                await answer.write(lines + newline)
        if last != _LAST or rest:
            raise engine_broken(revision, "its stream ended early")
    except ApiError as error:
        await answer.write(b"\n")  # the line before may have been the first of an event
        await answer.break_off(error)
    else:
        await answer.end()


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(content, dict):
        raise ApiError(400, "the body is not a JSON object", code="invalid_json")
    return content
