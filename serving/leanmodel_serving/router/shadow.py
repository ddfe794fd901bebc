"""A shadow: the large model is asked what the lean one has answered already, and paid for."""

from __future__ import annotations

from .account import Account
from .ask import PATHS, Ask
from .cost import Usage
from .logprobs import Reading
from .receipt import Receipt
from .request import Shared
from .route import Route
from .upstream import Upstream

_NOT_ASKED = frozenset(("stream", "stream_options", "logprobs", "top_logprobs"))
ROUTE = "shadow"


async def ask_shadow(shared: Shared, account: Account, ask: Ask, route: Route, size: int) -> str | None:
    """Return what the large model answers to a request, None where it does not answer, or no budget pays for it.

    Args:
        shared: the router's parts.
        account: of the request, whose client has its answer already: the cost is counted, not told.
        route: of the request; sampling parameters are filled in as they were for the lean model.
        size: bytes of the request's body.
    """
    receipt = await shared.till.shadow(account.state, ask, size, route)
    if receipt is None:
        return None
    try:
        return await _asked(shared.upstream, account, ask, route, receipt)
    finally:
        receipt.drop(0, 0)


async def _asked(
    upstream: Upstream, account: Account, ask: Ask, route: Route, receipt: Receipt
) -> str | None:
    settings, meters = account.state.settings, account.meters
    body = {name: value for name, value in ask.body.items() if name not in _NOT_ASKED}
    body = {**body, **route.fill, "model": settings.large.revision}
    request_id = f"{account.request_id[:121]}-shadow"
    reply = await upstream.ask(settings.large, PATHS[ask.endpoint], body, request_id, settings.limits)
    if not reply.ok or reply.content is None:
        return None
    usage = Usage.of(reply.content.get("usage"))
    work = account.work(settings.large, usage, reply.seconds)
    if work.tariff.basis != "none":
        nano = work.tariff.nano(usage, reply.seconds)
        meters.count("leanmodel_cost_usd", nano / 1e9, route=ROUTE, basis=work.tariff.basis)
        meters.save(ROUTE, work.tariff.basis, -nano)
        await receipt.settle(nano, usage.total)
    reading = Reading(ask.endpoint)
    reading.take(reply.content)
    return reading.answer
