"""Bounds on a request's time: until its body is here, until its answer is out, and while its client takes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from leanmodel_api.router import RouterLimits

from .errors import ApiError
from .http import Answer, ClientGone

BODY_S = SEND_S = 60.0
UNDECIDED = "undecided"
"""The header x-leanmodel-route of a stream whose headers went out before anybody had answered."""
T = TypeVar("T")


async def within(limits: RouterLimits, body: Awaitable[T]) -> T:
    """Return a request's body.

    Raises:
        ApiError: 408, it takes too long to come.
    """
    seconds = limits.body_timeout or BODY_S
    try:
        async with asyncio.timeout(seconds):
            return await body
    except TimeoutError:
        raise ApiError(
            408, f"the body did not come within {seconds:g} s; send it at once", kind="timeout_error", code="body_timeout"
        ) from None  # fmt: skip


@asynccontextmanager
async def taken(limits: RouterLimits, answer: Answer) -> AsyncIterator[None]:
    """Give a client up that takes nothing of its answer, for the time of the ``with``.

    One that neither reads nor hangs up would hold its place, its money and its engine for ever. There is one timer for
    the whole request, since one for each piece would cost more than the piece.

    Raises:
        ClientGone: it took nothing for so long.
    """
    seconds = limits.send_timeout or SEND_S
    loop, task, given_up = asyncio.get_running_loop(), asyncio.current_task(), False
    timer = loop.call_later(seconds, lambda: look())

    def look() -> None:
        nonlocal timer, given_up
        left = seconds - answer.waited()
        if left > 0 or task is None:
            timer = loop.call_later(left, look)
        else:
            given_up = task.cancel()

    try:
        yield
    except asyncio.CancelledError:
        # Who else cancels us meanwhile, as Serve does, is to see it.
        if given_up and task is not None and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        timer.cancel()


@asynccontextmanager
async def kept_alive(
    limits: RouterLimits, stream: bool, answer: Answer, request_id: str
) -> AsyncIterator[None]:
    """Keep a stream alive by comments, for the time of the ``with`` and until it begins.

    Who answers is not known yet: ``x-leanmodel-route`` says so, and comments say it before the first event.
    """
    seconds = limits.heartbeat
    if seconds is None or not stream:
        yield
        return
    headers = {"x-leanmodel-request-id": request_id, "x-leanmodel-route": UNDECIDED}

    async def beat(every: float) -> None:
        while not answer.begun:
            await asyncio.sleep(every)
            await answer.keep_alive(headers)

    heart = asyncio.create_task(beat(seconds))
    heart.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        yield
    finally:
        try:
            # Never in the middle of a message: an error may still have to be told.
            await answer.turn.acquire()
            answer.turn.release()
        finally:
            heart.cancel()


async def in_time(limits: RouterLimits, work: Awaitable[None], answer: Answer) -> None:
    """Carry a request out; a stream that takes too long ends with an error event.

    Raises:
        ApiError: 504, it took too long, and nothing was sent yet.
    """
    seconds = limits.request_timeout
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        error = ApiError(
            504, f"the answer took more than {seconds:g} s; ask for fewer tokens", kind="timeout_error",
            code="request_timeout",
        )  # fmt: skip
        if not answer.begun:
            raise error from None
        if not answer.finished:
            await answer.break_off(error)
