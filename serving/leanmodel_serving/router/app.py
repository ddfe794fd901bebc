"""The router's ASGI app: addresses, tokens, and the errors of everything below."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from ..engines.guard import bearer
from ..metrics import Meters
from .ask import PATHS, Endpoint, parse_ask
from .breaker import Breaker
from .cost import Pace
from .errors import ApiError, engine_down, not_found
from .generation import Generation, Shared
from .http import JSON, Answer, ClientGone, Receive, Scope, Send, header, read_body
from .internal import ask_revision
from .limiter import Limiter
from .pages import PREFIX as REPORTS
from .pages import show_report
from .snapshot import SettingsFile, Snapshot
from .upstream import Upstream

POLL_S = 0.25
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_ENDPOINTS: dict[str, Endpoint] = {path: endpoint for endpoint, path in PATHS.items()}
_CLIENT_GONE = 499
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
    ) -> None:
        """Read the settings and be ready to serve.

        Args:
            settings: the watched file.
            upstream: connections to the engines.
            meters: the metrics.
            internal_token: what the internal route asks for.
            reports: folder with the pages of proofs; None where none are shown.

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
        self.shared = Shared(upstream, meters, Pace(), Breaker())
        self.limiter = Limiter()
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
            self.shared.breaker = Breaker()
            self._in_force()

    def _in_force(self) -> None:
        generation = self.state.settings.generation
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
        if endpoint is not None and method == "POST":
            await self._generate(endpoint, scope, receive, answer, request_id, started)
        elif path.startswith("/internal/"):
            await self._internal(path, method, scope, receive, answer, request_id)
        else:
            with contextlib.suppress(ClientGone):
                await self._plain(path, method, answer, request_id)

    async def _generate(
        self,
        endpoint: Endpoint,
        scope: Scope,
        receive: Receive,
        answer: Answer,
        request_id: str,
        started: float,
    ) -> None:
        state, work, meters = self.state, None, self.shared.meters
        status = 0
        try:
            raw = await read_body(scope, receive, state.settings.limits.max_body_bytes)
            ask = parse_ask(raw, endpoint, state.settings.model)
            work = Generation(self.shared, state, ask, request_id, started)
            await work.run(answer)
            status = answer.status
        except ApiError as error:
            status = error.status
            await answer.error(error, {"x-leanmodel-request-id": request_id})
        except (ClientGone, asyncio.CancelledError) as gone:
            # Serve cancels us when the client hangs up; leaving closes the engine's connection, which stops it.
            status = _CLIENT_GONE
            if isinstance(gone, asyncio.CancelledError):
                raise
        except Exception:
            status = 500
            log.exception("request %s failed", request_id)
            if not answer.begun:
                wrong = ApiError(500, "the router failed; see its log by the request id", kind="api_error")
                await answer.error(wrong, {"x-leanmodel-request-id": request_id})
        finally:
            route = work.name if work is not None and status == 200 else "none"
            meters.count("leanmodel_requests", route=route, status=str(status))
            if status == 200:
                elapsed = time.perf_counter() - started
                meters.observe("gen_ai_server_request_duration_seconds", elapsed, route=route)

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
        finally:
            self.shared.meters.count("leanmodel_internal_requests", status=str(status or _CLIENT_GONE))

    async def _plain(self, path: str, method: str, answer: Answer, request_id: str) -> None:
        headers = {"x-leanmodel-request-id": request_id}
        handlers: dict[str, Callable[[], Awaitable[tuple[int, Any]]]] = {
            "/v1/models": self._models,
            f"/v1/models/{self.state.settings.model}": self._model,
            "/healthz": self._health,
            "/health": self._health,
        }
        try:
            if path in _ENDPOINTS:
                raise ApiError(
                    405, f"{path} takes POST", code="method_not_allowed", headers={"allow": "POST"}
                )
            if path.startswith("/engines/"):
                # Nobody but us asks there, and HAProxy comes to us only while that engine is not up.
                raise engine_down(path.split("/")[2][:63], "it is not up")
            if path not in handlers:
                raise not_found(path)
            if method not in ("GET", "HEAD"):
                raise ApiError(405, f"{path} takes GET", code="method_not_allowed", headers={"allow": "GET"})
            status, content = await handlers[path]()
            await answer.whole(status, to_json(content), headers, JSON)
        except ApiError as error:
            await answer.error(error, headers)

    async def _model(self) -> tuple[int, Any]:
        return 200, {
            "id": self.state.settings.model,
            "object": "model",
            "created": 0,
            "owned_by": "leanmodel",
        }

    async def _models(self) -> tuple[int, Any]:
        return 200, {"object": "list", "data": [(await self._model())[1]]}

    async def _health(self) -> tuple[int, Any]:
        settings = self.state.settings
        content = {
            "status": "ready" if self.warm else "warming up",
            "generation": settings.generation,
            "large": settings.large.revision,
            "lean": settings.lean.revision if settings.lean else None,
            "strategy": settings.strategy,
            "policy": self.state.policy or None,
            "settingsError": self._problem or None,
        }
        return (200 if self.warm else 503), content
