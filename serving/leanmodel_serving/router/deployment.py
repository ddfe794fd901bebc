"""The router as a Ray Serve application."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from pydantic_core import to_json
from ray import serve

from ..applications import RouterArgs
from ..ledger.clerk import Clerk
from ..ledger.file import ledger_beside, opened
from ..ledger.redis_store import RedisLedger
from ..metrics import ray_meters
from .app import RouterApp
from .ask import ENCODERS, PATHS, TASK_ENDPOINTS
from .http import Scope
from .snapshot import SettingsFile
from .state import kept_in
from .upstream import Upstream

_RETRY_S = 0.5
log = logging.getLogger("ray.serve")


@serve.ingress()
class Router:
    """One replica; ready once a generation went the whole way through it."""

    async def __init__(self, args: dict[str, Any]) -> None:  # type: ignore[misc]  # Serve awaits it
        """Read settings and tokens, then warm up.

        Args:
            args: a :class:`RouterArgs` as JSON object.
        """
        self.args = RouterArgs.model_validate(args)
        engine_token = Path(self.args.engine_token_file).read_text(encoding="utf-8").strip()
        internal_token = Path(self.args.internal_token_file).read_text(encoding="utf-8").strip()
        reports = Path(self.args.reports_folder) if self.args.reports_folder else None
        settings = SettingsFile(Path(self.args.settings_file))
        kept = kept_in(Path(self.args.state_file) if self.args.state_file else None)
        where = self.args.redis
        self.clerk = Clerk(RedisLedger(where) if where else opened(ledger_beside(self.args.state_file)))
        keys = Path(self.args.keys_folder) if self.args.keys_folder else None
        upstream, meters = Upstream(engine_token), ray_meters()
        self.router = RouterApp(
            settings, upstream, meters, internal_token, reports, kept, clerk=self.clerk, keys=keys
        )
        self.watchers = [
            asyncio.create_task(self.router.watch()),
            asyncio.create_task(self.router.shared.till.tend(lambda: self.router.state)),
            asyncio.create_task(self.router.shared.watcher.tend()),
        ]
        await self._warm_up()

    def __serve_build_asgi_app__(self) -> Any:  # noqa: N807 - Serve's hook
        """Return the app that Serve runs for this replica."""
        return self.router

    def __del__(self) -> None:
        """Write what is still to be written; Serve calls it once the last request has ended."""
        clerk: Clerk | None = getattr(self, "clerk", None)
        if clerk is not None:
            clerk.close()
            self.router.shared.meters.refresh()

    async def check_health(self) -> None:
        """Raise when the settings, or the promise, are no longer watched."""
        for task in self.watchers:
            if task.done():
                raise RuntimeError(f"settings and promise are no longer watched: {task.exception()}")

    async def _warm_up(self) -> None:
        """Ask for one token over the internal way until the large model answers; engines may still be loading."""
        attempt = 0
        while True:
            status = await self._one_token()
            if status == 200:
                break
            attempt += 1
            if attempt % 60 == 1:
                log.warning("router: waiting for the large model (status %d)", status)
            await asyncio.sleep(_RETRY_S)
        self.router.warm = True

    async def _one_token(self) -> int:
        large = self.router.state.settings.large.revision
        token = Path(self.args.internal_token_file).read_text(encoding="utf-8").strip()
        endpoint = TASK_ENDPOINTS[self.router.state.settings.task][-1]
        asked = {"input": "Hello"} if endpoint in ENCODERS else {"prompt": "Hello", "max_tokens": 1}
        body = to_json(asked if endpoint in ENCODERS else {**asked, "temperature": 0})
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": f"/internal/revisions/{large}{PATHS[endpoint]}",
            "headers": [(b"authorization", f"Bearer {token}".encode())],
        }
        seen: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen.append(int(message["status"]))

        await self.router(scope, receive, send)
        return seen[0] if seen else 0


def build(args: dict[str, Any]) -> serve.Application:
    """Return the Serve application of the router.

    Args:
        args: a :class:`RouterArgs` as JSON object (the ``args`` of serveConfigV2).
    """
    settings = RouterArgs.model_validate(args)
    deployment = serve.deployment(
        Router,
        name="Router",
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.max_ongoing_requests,
        ray_actor_options={"num_cpus": 0},
        logging_config={"enable_access_log": False},
        health_check_period_s=10.0,
        health_check_timeout_s=30.0,
        graceful_shutdown_timeout_s=20.0,
    )
    return deployment.bind(settings.model_dump(mode="json", by_alias=True))
