"""Asks the large model, once more where that may help, and the external provider in its place."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager

from leanmodel_api.external import Provider
from leanmodel_api.router import Backend, Resilience

from .cost import BYTES_PER_TOKEN, Usage
from .errors import EXTERNAL, ApiError, engine_resting
from .fallback import kept_inside, provider_error
from .http import Answer
from .outside import Closed
from .passing import Source, pass_on
from .request import Request
from .route import Route
from .upstream import refusal
from .wire import Reply, Stream

AGAIN = frozenset(("engine_unavailable", "bad_gateway", "provider_failed"))
"""Failures after which a second try may go well: nobody was there, or hung up. A slow model is not asked twice."""
LARGE = "large"
log = logging.getLogger("ray.serve")


class LargeModel:
    """The large model as a source."""

    def __init__(self, request: Request, backend: Backend) -> None:
        """Take what is asked, and where."""
        self._request, self._backend = request, backend

    @property
    def name(self) -> str:
        """Its revision."""
        return self._backend.revision

    async def ask(self) -> Reply:
        """Ask for a whole answer."""
        return await self._request.ask_backend(self._backend, self._request.body(self.name))

    def open(self) -> AbstractAsyncContextManager[Stream | Reply]:
        """Ask for a stream."""
        return self._request.open_backend(self._backend, self._request.body(self.name))

    def worked(self, usage: Usage, seconds: float) -> None:
        """Take in what it did."""
        self._request.account.large_worked(self._backend, usage, seconds)

    def counted(self) -> bool:
        """Say whether its work was taken in."""
        return self._request.account.large is not None

    def unsaid(self, tokens: int) -> None:
        """Leave it: what an engine of one's own did not finish is not billed."""

    def refused(self, reply: Reply) -> ApiError | None:
        """Return a refusal as an error, unless it is the engine's own word about the request."""
        return refusal(self._backend, reply)


class ExternalProvider:
    """The external provider as a source; all of it goes through the door."""

    name = EXTERNAL

    def __init__(self, request: Request, provider: Provider) -> None:
        """Take what is asked, and of whom."""
        self._request, self._provider = request, provider

    async def ask(self) -> Reply:
        """Ask for a whole answer."""
        request = self._request
        return await request.shared.door.ask(
            self._provider, request.ask.endpoint, request.body(EXTERNAL), request.account.request_id
        )

    def open(self) -> AbstractAsyncContextManager[Stream | Reply]:
        """Ask for a stream."""
        request = self._request
        return request.shared.door.stream(
            self._provider, request.ask.endpoint, request.body(EXTERNAL), request.account.request_id
        )

    def worked(self, usage: Usage, seconds: float) -> None:
        """Take in what it did."""
        self._request.account.provider_worked(self._provider.price, usage, seconds)

    def counted(self) -> bool:
        """Say whether its work was taken in."""
        return self._request.account.external is not None

    def unsaid(self, tokens: int) -> None:
        """Count what it must have done by the bytes: a provider bills, whether it says what for or not."""
        prompt = self._request.ask.prompt_bytes() // BYTES_PER_TOKEN
        log.warning(
            "request %s: the external provider did not say its usage; counted as about %d and %d tokens",
            self._request.account.request_id, prompt, tokens,
        )  # fmt: skip
        self.worked(Usage(prompt, tokens), 0.0)

    def refused(self, reply: Reply) -> ApiError | None:
        """Return its refusal as an error of ours."""
        return provider_error(reply)


async def ask_large(request: Request, answer: Answer) -> ApiError | None:
    """Ask the large model, twice where the first try failed at once; return why it did not answer, None when it did.

    While its breaker is open nobody waits for it.
    """
    shared, large = request.shared, request.state.settings.large
    source, breaker = LargeModel(request, large), shared.breakers.large
    shared.retries.earned(_rules(request).retries)
    if not breaker.allows():
        return engine_resting(large.revision, breaker.rests())
    error = await _asked(request, answer, source)
    breaker.saw(ok=_well(answer, error))
    if error is None or not breaker.allows() or not _again(request, answer, error, LARGE):
        return error
    error = await _asked(request, answer, source)
    breaker.saw(ok=_well(answer, error))
    _tried_again(request, LARGE, error)
    return error


async def ask_outside(request: Request, answer: Answer, route: Route) -> ApiError | None:
    """Ask the external provider in the large model's place; return why it did not answer, None when it did.

    Args:
        route: where the request was sent first.
    """
    shared, account, access = request.shared, request.account, request.state.settings.external
    why = kept_inside(request.state, request.ask, route, request.wishes)
    if not why and not shared.breakers.external.allows():
        why = "resting"
    if why or access is None:
        return _nobody(request, why)
    source = ExternalProvider(request, access.provider)
    before = account.name, account.escalated_for
    account.name, account.escalated_for = EXTERNAL, ""
    try:
        error = await _asked(request, answer, source)
        if error is not None and _again(request, answer, error, EXTERNAL):
            error = await _asked(request, answer, source)
            _tried_again(request, EXTERNAL, error)
    except Closed as closed:
        log.warning("request %s stays inside: %s", account.request_id, closed)
        account.name, account.escalated_for = before
        return _nobody(request, "closed")
    shared.breakers.external.saw(ok=_well(answer, error))
    if error is None:
        _told(request, "answered")
        return None
    account.name, account.escalated_for = before
    _told(request, "rate-limited" if error.status == 429 else "failed" if error.status >= 500 else "refused")
    return error


async def _asked(request: Request, answer: Answer, source: Source) -> ApiError | None:
    try:
        await pass_on(request, answer, source)
    except ApiError as error:
        if not answer.begun:
            return error
        answer.status = error.status  # some of it is out: nobody else may go on
    return None


def _well(answer: Answer, error: ApiError | None) -> bool:
    """Return whether a backend did what it should; one that broke off in the middle of a stream did not."""
    return answer.status < 500 if error is None else error.status < 500


def _again(request: Request, answer: Answer, error: ApiError, role: str) -> bool:
    """Say whether to try again: only before the first byte, and within the budget."""
    if answer.begun or error.code not in AGAIN:
        return False
    allowed = request.shared.retries.take(_rules(request).retries)
    if not allowed:
        request.shared.meters.count("leanmodel_retries", role=role, result="no-budget")
    return allowed


def _tried_again(request: Request, role: str, error: ApiError | None) -> None:
    result = "answered" if error is None else "failed"
    request.shared.meters.count("leanmodel_retries", role=role, result=result)
    log.info("request %s was tried a second time at %s: %s", request.account.request_id, role, result)


def _rules(request: Request) -> Resilience:
    return request.state.settings.resilience or Resilience()


def _told(request: Request, result: str) -> None:
    request.shared.meters.count("leanmodel_external_requests", result=result)


def _nobody(request: Request, why: str) -> ApiError:
    """Count that a request stayed inside; where no provider may be asked at all that is nothing to count."""
    if why != "forbidden":
        _told(request, why)
    return ApiError(503, f"the external provider was not asked ({why})", "service_unavailable_error")
