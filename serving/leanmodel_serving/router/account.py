"""One request's account: what each model did for it, what that cost, and the headers that say so."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import to_json

from leanmodel_api.router import Backend
from leanmodel_api.serving import Price

from ..metrics import Meters
from .cost import Bill, Pace, Tariff, Usage, bill, usd
from .errors import EXTERNAL
from .route import Route, scope_kind
from .snapshot import Snapshot

Promised = Literal["full", "under-pressure", "suspended", "none"]
"""The policy's promise, its second one, one that somebody's standing in has suspended, or none."""


@dataclass
class Work:
    """What one model did for a request."""

    tariff: Tariff
    usage: Usage
    seconds: float


class Account:
    """Gathered while a request is under way.

    Attributes:
        name: the route as it turned out: lean, large, escalated or external; none before an answer.
        confidence: of the lean answer, where it was judged; of the prompt, where that decided.
        escalated_for: why the large model answers although the lean one was asked; empty when it was not.
        revision: which revision answered; empty before an answer.
        tenant: whose key was used; empty where none is asked for.
    """

    def __init__(self, state: Snapshot, meters: Meters, pace: Pace, request_id: str, started: float) -> None:
        """Begin, at ``time.perf_counter()`` ``started``."""
        self.state, self.meters, self.pace = state, meters, pace
        self.request_id, self.started = request_id, started
        self.name, self.tenant = "none", ""
        self.confidence: float | None = None
        self.escalated_for = self.revision = ""
        self.lean: Work | None = None
        self.large: Work | None = None
        self.external: Work | None = None
        self._billed: tuple[Work | None, Work | None, Work | None, Bill] | None = None

    def work(self, backend: Backend, usage: Usage, seconds: float) -> Work:
        """Count a model's tokens; return its work."""
        role = "lean" if backend is self.state.settings.lean else "large"
        self._tokens(role, backend.revision, usage)
        return Work(self.state.tariff(backend), usage, seconds)

    def _tokens(self, role: str, revision: str, usage: Usage) -> None:
        for kind, tokens in (("input", usage.prompt), ("output", usage.completion)):
            labels = {"gen_ai_token_type": kind, "role": role, "revision": revision}
            self.meters.observe("gen_ai_client_token_usage", float(tokens), **labels)
            self.meters.count("leanmodel_tokens", float(tokens), **labels)

    def lean_worked(self, lean: Backend, usage: Usage, seconds: float) -> None:
        """Take in the lean model's part."""
        work = self.work(lean, usage, seconds)
        if self.lean is not None:  # asked again, in the large model's place
            both = Usage(self.lean.usage.prompt + usage.prompt, self.lean.usage.completion + usage.completion)
            work = Work(work.tariff, both, self.lean.seconds + seconds)
        self.lean = work

    def large_worked(self, large: Backend, usage: Usage, seconds: float) -> None:
        """Take in the large model's part."""
        self.large = self.work(large, usage, seconds)
        self.pace.saw(usage, seconds)

    def provider_worked(self, price: Price | None, usage: Usage, seconds: float) -> None:
        """Take in the external provider's part, at its price."""
        self._tokens(EXTERNAL, EXTERNAL, usage)
        self.external = Work(Tariff.priced(price), usage, seconds)

    def bill(self) -> Bill:
        """Return what it cost so far; counted anew only when somebody has worked since."""
        done = self._billed
        if done is not None and done[0] is self.lean and done[1] is self.large and done[2] is self.external:
            return done[3]
        lean, large, external = (
            None if work is None else (work.tariff, work.usage, work.seconds)
            for work in (self.lean, self.large, self.external)
        )
        found = bill(lean, large, self.state.large, self.pace, external)
        self._billed = self.lean, self.large, self.external, found
        return found

    def tokens(self) -> int:
        """Return all tokens that were used so far."""
        return sum(work.usage.total for work in (self.lean, self.large, self.external) if work is not None)

    def paid(self) -> None:
        """Count the money that went into a request."""
        meters, found = self.meters, self.bill()
        if found.known:
            labels = {"route": self.name, "basis": found.basis}
            meters.count("leanmodel_cost_usd", found.cost / 1e9, **labels)
            meters.count("leanmodel_counterfactual_cost_usd", found.counterfactual / 1e9, **labels)
            meters.save(self.name, found.basis, found.counterfactual - found.cost)
            if self.tenant:
                meters.count("leanmodel_tenant_cost_usd", found.cost / 1e9, tenant=self.tenant)

    def settle(self, route: Route) -> None:
        """Count the money and the way of an answered request."""
        meters = self.meters
        self.paid()
        if self.escalated_for:
            meters.count("leanmodel_escalations", reason=self.escalated_for)
        if route.scope:
            meters.count("leanmodel_out_of_scope", kind=scope_kind(route.scope))
        meters.count("leanmodel_decisions", reason=route.reason)
        meters.count("leanmodel_promises", promise=self.promise(route))

    def promise(self, route: Route) -> Promised:
        """Return which promise covers the answer, if any does."""
        if route.reason == "large-failing" or (route.alone and not route.promised):
            return "suspended"
        covered = self.state.attribution(route.promised, route.pressure)["x-leanmodel-certificate"]
        return "none" if covered == "none" else "under-pressure" if route.pressure else "full"

    def first_token(self) -> None:
        """Note that the first event is out."""
        elapsed = time.perf_counter() - self.started
        self.meters.observe("gen_ai_server_time_to_first_token_seconds", elapsed, route=self.name)

    def per_token(self, first: float, last: float, usage: Usage) -> None:
        """Note the pace of a stream whose first and last chunk came at these times."""
        if usage.completion > 1 and last > first:
            value = (last - first) / (usage.completion - 1)
            self.meters.observe("gen_ai_server_time_per_output_token_seconds", value, route=self.name)

    def with_cost(self, chunk: dict[str, Any]) -> bytes:
        """Return a stream's usage chunk with the cost in it."""
        found = self.bill()
        if found.known:
            extra = {"cost_usd": usd(found.cost), "cost_basis": found.basis, "route": self.name}
            chunk = {**chunk, "usage": {**chunk["usage"], **extra}}
        return to_json(chunk)

    def headers(self, revision: str, route: Route, with_cost: bool) -> dict[str, str]:
        """Return the headers that say who answered, why, under which promise, and for how much."""
        self.revision = revision
        headers = {
            "x-leanmodel-route": self.name,
            "x-leanmodel-reason": route.reason,
            "x-leanmodel-revision": revision,
            "x-leanmodel-request-id": self.request_id,
            **self.state.attribution(route.promised, route.pressure),
        }
        # Where there is one promise alone, the certificate says all but that it is suspended.
        if (promise := self.promise(route)) == "suspended" or self.state.relaxed is not None:
            headers["x-leanmodel-promise"] = promise
        if route.pressure:
            headers["x-leanmodel-pressure"] = route.pressure
        if self.confidence is not None:
            headers["x-leanmodel-confidence"] = f"{self.confidence:.6f}"
        if route.group:
            headers["x-leanmodel-group"] = route.group
        if route.scope:
            headers["x-leanmodel-scope"] = route.scope[:200]
        if route.alarm:
            headers["x-leanmodel-alarm"] = route.alarm
        if route.fill:
            headers["x-leanmodel-sampling"] = ",".join(
                f"{name}={value:g}" for name, value in route.fill.items()
            )
        found = self.bill() if with_cost else Bill("none")
        if found.known:
            headers["x-leanmodel-cost-usd"] = usd(found.cost)
            headers["x-leanmodel-cost-basis"] = found.basis
        return headers

    def facts(self, route: Route) -> dict[str, str | int | float | None]:
        """Return what the request's span tells; dots are double underscores."""
        work = self.lean if self.name == "lean" else self.large
        found = self.bill()
        return {
            "gen_ai__response__model": self.revision, "leanmodel__route": self.name, "leanmodel__reason": route.reason,
            "gen_ai__usage__input_tokens": work.usage.prompt if work else None,
            "gen_ai__usage__output_tokens": work.usage.completion if work else None,
            "leanmodel__promise": self.promise(route), "leanmodel__confidence": self.confidence,
            "leanmodel__escalated_for": self.escalated_for,
            "leanmodel__cost_usd": usd(found.cost) if found.known else None,
        }  # fmt: skip

    def line(self, route: Route, status: int) -> str:
        """Return the request as one line for the log; nothing of its text is in it."""
        found, promise = self.bill(), self.state.attribution(route.promised, route.pressure)
        told = {
            "route": self.name, "reason": route.reason, "revision": self.revision or "none", "status": status,
            "policy": promise.get("x-leanmodel-policy", "none"),
            "certificate": promise["x-leanmodel-certificate"].replace(" ", ""), "promise": self.promise(route),
            "confidence": "none" if self.confidence is None else f"{self.confidence:.6f}",
            "cost_usd": usd(found.cost) if found.known else "unknown",
            "seconds": f"{time.perf_counter() - self.started:.3f}",
        }  # fmt: skip
        if route.pressure:
            told["pressure"] = route.pressure
        if self.tenant:
            told["tenant"] = self.tenant
        return f"request {self.request_id} " + " ".join(f"{name}={value}" for name, value in told.items())
