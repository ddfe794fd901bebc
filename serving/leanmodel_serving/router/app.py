"""The router's ASGI app: addresses, tokens, and the errors of everything below."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import time
import uuid
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from leanmodel_api.router import RouterSettings

from ..engines.guard import bearer
from ..ledger.clerk import Clerk
from ..ledger.file import LedgerFile
from ..metrics import Meters
from .ask import PATHS, TASK_ENDPOINTS, parse_ask
from .bounded import in_time, kept_alive, taken, within
from .breaker import Breakers, RetryBudget
from .conversations import conversation
from .cost import Pace
from .errors import ApiError, engine_down, other_task
from .fields import Endpoint
from .gate import Gate
from .generation import Generation
from .http import JSON, Answer, ClientGone, Receive, Scope, Send, header, read_body
from .internal import ask_revision
from .keyring import Keyring
from .limiter import Limiter
from .lookups import Health, Lookup, ModelList, found, listed, to_wire
from .openapi import document
from .outside import Door
from .overrides import HEADERS, wishes
from .pages import PREFIX as REPORTS
from .pages import show_report
from .receipt import ANYBODY, Caller
from .refusals import REFUSED
from .relief import Relief
from .request import Shared
from .snapshot import SettingsFile, Snapshot
from .state import StateFile
from .till import Till
from .tracing import Span, Tracer
from .upstream import Upstream
from .watcher import Watcher

POLL_S = 0.25
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_ENDPOINTS: dict[str, Endpoint] = {path: endpoint for endpoint, path in PATHS.items()}
_CLIENT_GONE = 499
_FAILED = ApiError(500, "the router failed; see its log by the request id", kind="api_error")
log = logging.getLogger("ray.serve")


class RouterApp:
    """Routes, answers, counts. Prompts and answers are never logged."""

    def __init__(
        self,
        settings: SettingsFile,
        upstream: Upstream,
        meters: Meters,
        internal_token: str,
        reports: Path | None = None,
        kept: StateFile | None = None,
        clerk: Clerk | None = None,
        keys: Path | None = None,
    ) -> None:
        """Read the settings and be ready to serve.

        Args:
            settings: the watched file.
            upstream: connections to the engines.
            meters: the metrics.
            internal_token: what the internal route asks for.
            reports: folder with the pages of proofs; None where none are shown.
            kept: the monitors' state; None keeps it for this replica's life.
            clerk: keeps the ledger; None keeps it for this replica's life.
            keys: folder with the API keys' entries; None where there is none.

        Raises:
            ValueError: the settings cannot be used.
        """
        if not internal_token:
            raise ValueError("the internal route's token is empty: write a random one into its file")
        first = settings.changed()
        if first is None:
            raise ValueError(f"{settings.path.name}: no settings")
        self.state: Snapshot = first
        self.warm = False
        self.file = settings
        watcher = Watcher(kept or StateFile(None), first, meters)
        breakers, door = Breakers(None, meters), Door(settings.path, self._sure)
        till = Till(clerk or Clerk(LedgerFile(None)), meters)
        self.limiter, self.gate, self.keyring = Limiter(), Gate(), Keyring(keys)
        relief = Relief(self.gate, till, meters)
        self.shared = Shared(upstream, meters, Pace(), breakers, watcher, door, RetryBudget(), till, relief)
        self.tracer = Tracer()
        self._internal_token = internal_token.encode()
        self._reports = reports
        self._problem = ""
        self._in_force()

    # ------------------------------------------------------------ settings

    async def watch(self) -> None:
        """Swap the settings whenever the file changes, for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            self.reload()
            self.keyring.look()
            self.shared.relief.look(self.state)
            self.gate.show(self.shared.meters)
            self.shared.meters.refresh()

    def reload(self) -> None:
        """Look at the file once; a file that cannot be used leaves the settings as they are."""
        try:
            found = self.file.changed()
        except (OSError, ValueError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self.shared.meters.count("leanmodel_settings_errors")
                log.error("router settings refused, the ones before stay in force: %s", error)
            return
        if found is not None:
            self._problem = ""
            self.state = found
            self.shared.watcher.follow(found)
            self._in_force()

    def _sure(self) -> RouterSettings:
        """Bring the settings up to date and return them, for whoever must not act on old ones.

        Raises:
            ValueError: the file cannot be used now, so that nobody knows what holds.
        """
        self.reload()
        if self._problem:
            raise ValueError("the settings file cannot be used")
        return self.state.settings

    def _in_force(self) -> None:
        generation = self.state.settings.generation
        self.tracer.follow(self.state.settings.tracing, self.state.settings.model)
        self.shared.breakers = Breakers(self.state.settings.resilience, self.shared.meters)
        self.shared.meters.set("leanmodel_settings_generation", float(generation))
        log.info("router settings: generation %d in force", generation)

    # ------------------------------------------------------------ requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        started = time.perf_counter()
        asked = header(scope, b"x-request-id")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        answer = Answer(send)
        path, method = scope["path"], scope["method"]
        endpoint = _ENDPOINTS.get(path)
        with contextlib.suppress(ClientGone):
            async with taken(self.state.settings.limits, answer):
                if endpoint is not None and method == "POST":
                    with self.tracer.request(scope, endpoint, self.state.settings.model) as span:
                        await self._generate(endpoint, scope, receive, answer, request_id, started, span)
                elif path.startswith("/internal/"):
                    await self._internal(path, method, scope, receive, answer, request_id)
                else:
                    await self._look(scope, answer, request_id)

    async def _generate(
        self,
        endpoint: Endpoint,
        scope: Scope,
        receive: Receive,
        answer: Answer,
        request_id: str,
        started: float,
        span: Span,
    ) -> None:
        state, work, meters = self.state, None, self.shared.meters
        status = 0
        try:
            caller = self._caller(scope, state)
            raw = await within(
                state.settings.limits, read_body(scope, receive, state.settings.limits.max_body_bytes)
            )
            if endpoint not in TASK_ENDPOINTS[state.settings.task]:
                raise other_task(PATHS[endpoint], [PATHS[own] for own in TASK_ENDPOINTS[state.settings.task]])
            ask = parse_ask(raw, endpoint, state.settings.model)
            asked = {name: value for name in HEADERS if (value := header(scope, name.encode()))}
            wanted = wishes(asked, state.settings.overrides, state.settings.lean is not None)
            talk = conversation(ask, header(scope, b"x-session-id"))
            kind = header(scope, b"x-leanmodel-group")
            async with self.gate.place(state.settings.limits):
                work = Generation(self.shared, state, ask, request_id, started, wanted, talk, kind)
                await work.admit(caller, len(raw))
                async with kept_alive(state.settings.limits, ask.stream, answer, request_id):
                    await in_time(state.settings.limits, work.run(answer), answer)
            status = answer.status
        except ApiError as error:
            status = error.status
            if error.code in REFUSED:
                meters.count("leanmodel_refused", reason=str(error.code))
            await answer.error(error, {"x-leanmodel-request-id": request_id, **state.attribution()})
        except (ClientGone, asyncio.CancelledError) as gone:
            # Serve cancels us when the client hangs up; leaving closes the engine's connection, which stops it.
            status = _CLIENT_GONE
            if isinstance(gone, asyncio.CancelledError):
                raise
        except Exception:
            status = 500
            log.exception("request %s failed", request_id)
            if not answer.begun:
                await answer.error(_FAILED, {"x-leanmodel-request-id": request_id, **state.attribution()})
            elif work is not None and work.ask.stream and not answer.finished:
                await answer.break_off(_FAILED)
        finally:
            if work is not None:
                work.end(answer.events)
            if span.wanted:
                facts = work.account.facts(work.route) if work else {}
                span.tell(status, leanmodel__request_id=request_id, **facts)
            route = work.account.name if work is not None and status == 200 else "none"
            if work is not None:
                log.info("%s", work.account.line(work.route, status))
            else:
                log.info("request %s status=%d", request_id, status)
            meters.count("leanmodel_requests", route=route, status=str(status))
            if status == 200:
                elapsed = time.perf_counter() - started
                meters.observe("gen_ai_server_request_duration_seconds", elapsed, route=route)

    def _caller(self, scope: Scope, state: Snapshot) -> Caller:
        """Return who asks.

        Raises:
            ApiError: 401, keys are asked for and this is none.
        """
        if state.settings.access is None:
            return ANYBODY
        return Caller.of(self.keyring.opened(bearer(scope)))

    async def _internal(
        self, path: str, method: str, scope: Scope, receive: Receive, answer: Answer, request_id: str
    ) -> None:
        status = 0
        try:
            if not hmac.compare_digest(bearer(scope), self._internal_token):
                raise ApiError(401, "the internal route needs its bearer token", code="invalid_api_key")
            limits = self.state.settings.limits
            with self.limiter.slot(limits.internal_concurrency, limits.internal_requests_per_second):
                body = await read_body(scope, receive, limits.max_body_bytes)
                if path.startswith(REPORTS):
                    await show_report(self._reports, path, method, answer, request_id)
                else:
                    upstream = self.shared.upstream
                    await ask_revision(upstream, self.state, path, method, body, answer, request_id)
            status = answer.status
        except ApiError as error:
            status = error.status
            if not answer.begun:
                await answer.error(error, {"x-leanmodel-request-id": request_id})
        except ClientGone:
            status = _CLIENT_GONE
        except Exception:
            status = 500
            log.exception("request %s on the internal route failed", request_id)
            if not answer.begun:
                await answer.error(_FAILED, {"x-leanmodel-request-id": request_id})
        finally:
            self.shared.meters.count("leanmodel_internal_requests", status=str(status or _CLIENT_GONE))

    async def _look(self, scope: Scope, answer: Answer, request_id: str) -> None:
        path, headers = scope["path"], {"x-leanmodel-request-id": request_id}
        try:
            if path.startswith("/engines/"):
                # Nobody but us asks there, and HAProxy comes to us only while that engine is not up.
                raise engine_down(path.split("/")[2][:63], "it is not up")
            lookup = found(path, scope["method"], self.state.settings)
            if path.startswith("/v1/"):
                self._caller(scope, self.state)
            status, content = self._found(lookup)
            await answer.whole(status, to_json(content), headers, JSON)
        except ApiError as error:
            await answer.error(error, headers)

    def _found(self, lookup: Lookup) -> tuple[int, dict[str, Any]]:
        settings = self.state.settings
        if lookup == "model":
            return 200, to_wire(listed(settings))
        if lookup == "models":
            return 200, to_wire(ModelList(data=[listed(settings)]))
        if lookup == "document":
            return 200, document(settings)
        return (200 if self.warm else 503), to_wire(self._health())

    def _health(self) -> Health:
        settings = self.state.settings
        return Health(
            status="ready" if self.warm else "warming up",
            generation=settings.generation,
            large=settings.large.revision,
            lean=settings.lean.revision if settings.lean else None,
            strategy=settings.strategy,
            policy=self.state.policy or None,
            certificate=self.state.certificate,
            certificate_under_pressure=self.state.second if self.state.relaxed is not None else None,
            pressure=self.shared.relief.cause or None,
            broken=self.shared.watcher.broken,
            watch_error=self.shared.watcher.problem or None,
            settings_error=self._problem or None,
            external=settings.external.permission if settings.external else "Forbidden",
            external_error=self.shared.door.problem() or None,
        )
