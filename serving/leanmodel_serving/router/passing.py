"""Passes a backend's answer on as it comes, whole or in events, and counts it: the large model's, or a provider's."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pydantic_core import from_json

from .cost import BYTES_PER_TOKEN, Usage
from .errors import ApiError, engine_broken
from .http import EVENTS, Answer
from .request import Request
from .sse import DONE, event
from .wire import Reply, Stream

_USAGE_MARK, _ERROR_MARK = b'"usage"', b'"error"'


class Source(Protocol):
    """Who is asked, as far as passing on needs to know."""

    @property
    def name(self) -> str:
        """What the header x-leanmodel-revision says."""

    async def ask(self) -> Reply:
        """Ask for a whole answer."""

    def open(self) -> AbstractAsyncContextManager[Stream | Reply]:
        """Ask for a stream."""

    def worked(self, usage: Usage, seconds: float) -> None:
        """Take in what it did."""

    def counted(self) -> bool:
        """Say whether its work was taken in."""

    def unsaid(self, tokens: int) -> None:
        """Take in that it did not say its usage, and that about so many tokens came from it."""

    def refused(self, reply: Reply) -> ApiError | None:
        """Return a refusal as an error; None passes it on in its own words."""


async def pass_on(request: Request, answer: Answer, source: Source) -> None:
    """Ask, and send the client what comes.

    Raises:
        ApiError: nothing was sent, and this is why.
        Closed: it is the provider, and nothing may leave.
    """
    await (_stream if request.ask.stream else _whole)(request, answer, source)


async def _whole(request: Request, answer: Answer, source: Source) -> None:
    reply = await source.ask()
    if not reply.ok or reply.content is None or isinstance(reply.content.get("error"), dict):
        await refuse(request, answer, source.name, source.refused(reply), reply)
        return
    usage = Usage.of(reply.content.get("usage"))
    if not usage.total:
        source.unsaid(len(reply.body) // BYTES_PER_TOKEN)
    if not source.counted():
        source.worked(usage, reply.seconds)
    await request.settle()
    await answer.whole(200, reply.body, request.headers(source.name, with_cost=True))


async def _stream(request: Request, answer: Answer, source: Source) -> None:
    account = request.account
    async with source.open() as stream:
        if isinstance(stream, Reply):
            await refuse(request, answer, source.name, source.refused(stream), stream)
            return
        usage, sent = Usage(), 0
        first = last = 0.0
        broken: ApiError | None = None
        complete = failed = False
        try:
            async for batch in stream.batches():
                last, out = time.perf_counter(), list[bytes]()
                for data in batch:
                    if not answer.begun:
                        if _failure(data):  # nothing is out yet, and somebody else may answer
                            raise engine_broken(source.name, "its stream began with an error")
                        await answer.start(200, EVENTS, request.headers(source.name, with_cost=False))
                        first = last
                        account.first_token()
                    if data == DONE:
                        complete = True
                        break
                    final = _object(data) if _USAGE_MARK in data else None
                    said = final.get("usage") if final is not None else None
                    if isinstance(said, dict) and said:
                        usage = Usage.of(said)
                    if final is None or not isinstance(said, dict) or not said or final.get("choices"):
                        failed = failed or _failure(data)
                        out.append(event(data))
                        sent += 1
                        continue
                    if not source.counted():
                        source.worked(usage, last - stream.started)
                    if request.ask.usage_wanted:
                        out.append(event(account.with_cost(final)))
                if out:
                    await answer.write(b"".join(out), len(out))
                if complete:
                    break
            else:
                # However properly it ended: what has not said that it is whole is not.
                broken = engine_broken(source.name, "its stream ended early")
        except ApiError as error:
            if not answer.begun:
                raise
            broken = error
        except BaseException:
            if answer.begun and not source.counted():
                source.unsaid(sent)
                account.paid()
            raise
        if not answer.begun:
            raise engine_broken(source.name, "an empty stream")
        if not source.counted() and not usage.total:
            source.unsaid(sent)
        if not source.counted():
            source.worked(usage, last - stream.started)
        if broken is not None:
            answer.status = broken.status
        elif failed:
            answer.status = 502  # the client has it in the backend's own words
        await request.settle()
        account.per_token(first, last, usage)
        if broken is not None:
            await answer.break_off(broken)
        else:
            await answer.write(event(DONE))
            await answer.end()


async def refuse(request: Request, answer: Answer, name: str, error: ApiError | None, reply: Reply) -> None:
    """Pass a refusal on, as it is where it is the backend's own word.

    Raises:
        ApiError: the one that it is told by instead.
    """
    if error is not None:
        raise error
    request.account.name = "none"
    extra = {"retry-after": "1"} if reply.status in (429, 503) else {}
    headers = request.headers(name, with_cost=False)
    await answer.whole(reply.status, reply.body, {**headers, **extra})


def _failure(data: bytes) -> bool:
    """Return whether an event says that the backend failed; what it says of the request's own faults is no failure."""
    if _ERROR_MARK not in data:
        return False
    said = (_object(data) or {}).get("error")
    return isinstance(said, dict) and said.get("code") not in (400, 404, "400", "404")


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = from_json(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
