"""The one door to the outside: nothing else in the router can open a connection that leaves this machine.

Whether it may be used is asked anew at every send, twice: before a connection is opened, and when it stands, right
before the first byte. What counts is the settings file as it is on the disk at that moment, the settings that are in
force, *and* those that the request began with; they must all allow the very same provider. A file that is missing,
half-written, of an unknown version, or that says anything but ``Allowed`` closes the door, and so does an error in
asking. Whoever wants to send (a fallback, a second try) comes through here; engines are asked by :mod:`.upstream`,
which cannot leave the machine.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from pydantic_core import to_json

from leanmodel_api.external import ExternalAccess, Provider
from leanmodel_api.router import RouterSettings

from .errors import EXTERNAL
from .fields import Endpoint
from .wire import Reply, Stream, json_object, sent, streamed, whole

PATHS: dict[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions"}
"""Behind a provider's base address; what is not here does not go outside."""
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")
_HIDDEN = "[key]"
log = logging.getLogger("ray.serve")


class Closed(Exception):  # noqa: N818 - a refusal, not a fault
    """Nothing may leave, or can; the message says why. It holds no key and no text of a request."""


class Door:
    """Asks the external provider, where that is allowed at this moment."""

    def __init__(self, file: Path, in_force: Callable[[], RouterSettings]) -> None:
        """Take where the settings are; nothing is opened yet.

        Args:
            file: the settings as the operator or the supervisor writes them.
            in_force: brings the settings up to date and returns those that the router decides by.
        """
        self._file, self._in_force = file, in_force
        self._read: tuple[bytes, ExternalAccess | None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    # ------------------------------------------------------------ permission

    def provider(self) -> Provider:
        """Return the provider that may be asked now.

        Raises:
            Closed: none may.
        """
        try:
            raw = self._file.read_bytes()
            if self._read is None or self._read[0] != raw:
                self._read = (raw, RouterSettings.model_validate_json(raw).external)
            written, used = self._read[1], self._in_force().external
        except Exception as error:  # whatever it is: who cannot be asked has not allowed it
            raise Closed(f"the settings cannot be read ({type(error).__name__})") from None
        if written is None or written.permission != "Allowed":
            raise Closed("spec.routing.externalProviders is Forbidden")
        if used != written:
            raise Closed("the settings are changing")
        return written.provider

    def problem(self) -> str:
        """Return why a provider that is allowed cannot be asked; empty when it can, or none is."""
        try:
            provider = self.provider()
        except Closed:
            return ""
        try:
            self._key(provider)
        except Closed as closed:
            return str(closed)
        return ""

    def _demand(self, url: Any) -> None:
        """Let a request pass to this address, a ``yarl.URL``, or raise :class:`Closed`."""
        provider = self.provider()
        if all(url != type(url)(_address(provider, path)) for path in PATHS.values()):
            raise Closed("the provider has changed")

    def _key(self, provider: Provider) -> str:
        """Return the key as it stands in the file now, empty where the provider wants none."""
        if provider.key_file is None:
            return ""
        try:
            key = Path(provider.key_file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise Closed(f"the provider's key cannot be read ({type(error).__name__})") from None
        if not _KEY.fullmatch(key):
            raise Closed("the provider's key is empty, or holds spaces or line breaks")
        return key

    # ------------------------------------------------------------ sending

    async def ask(
        self, provider: Provider, endpoint: Endpoint, body: dict[str, Any], request_id: str
    ) -> Reply:
        """Ask for a whole answer.

        Args:
            provider: whom the request may be sent to, by the settings that it began with.
            endpoint: which kind.
            body: the request; its model becomes the provider's.
            request_id: for the log; it is not sent.

        Raises:
            Closed: nothing has left.
            ApiError: the provider could not be reached, was too slow, or broke off.
        """
        started = time.perf_counter()
        patience = provider.patience
        async with self._sent(provider, endpoint, body, request_id, patience.whole) as (response, key):
            return _hidden(await whole(response, started, patience.whole), key)

    @asynccontextmanager
    async def stream(
        self, provider: Provider, endpoint: Endpoint, body: dict[str, Any], request_id: str
    ) -> AsyncIterator[Stream | Reply]:
        """Ask for a stream; yields it, or the provider's refusal.

        Raises:
            Closed: nothing has left.
            ApiError: as :meth:`ask`; also out of the body of the ``with``, when the provider breaks off.
        """
        started = time.perf_counter()
        patience = provider.patience
        async with (
            self._sent(provider, endpoint, body, request_id, patience.first_byte_timeout) as (response, key),
            streamed(response, EXTERNAL, started, patience) as found,
        ):
            yield _hidden(found, key) if isinstance(found, Reply) else found

    @asynccontextmanager
    async def _sent(
        self, provider: Provider, endpoint: Endpoint, body: dict[str, Any], request_id: str, wait: float
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, str]]:
        path = PATHS.get(endpoint)
        if path is None:
            raise Closed(f"no provider answers {endpoint}")
        if self.provider() != provider:
            raise Closed("the provider has changed since the request began")
        key = self._key(provider)
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        payload = to_json({**body, "model": provider.model})
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=_GuardedConnector(self._demand),
                read_bufsize=2**18,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        session, url = self._session, _address(provider, path)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=provider.patience.connect_timeout)

        async def ask() -> aiohttp.ClientResponse:
            return await session.request(
                "POST", url, data=payload, headers=headers, timeout=timeout, allow_redirects=False
            )

        async with sent(ask, EXTERNAL, wait, tries=1) as response:
            # Who asks what left the machine finds each request, and when it did.
            log.info("request %s went to the external provider: model=%s status=%d", request_id, provider.model, response.status)  # fmt: skip
            yield response, key


class _GuardedConnector(aiohttp.TCPConnector):
    """Asks for permission before a connection is opened, and once it stands, right before aiohttp writes."""

    def __init__(self, demand: Callable[[Any], None]) -> None:
        # Idle connections go soon: nothing is kept open to a provider that may be forbidden by then.
        super().__init__(limit=0, keepalive_timeout=10.0)
        self._demand = demand

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        self._demand(req.url)
        connection = await super().connect(req, traces, timeout)
        try:
            self._demand(req.url)
        except BaseException:
            connection.close()
            raise
        return connection


def _address(provider: Provider, path: str) -> str:
    return provider.base_url.rstrip("/") + path


def _hidden(reply: Reply, key: str) -> Reply:
    """Return a reply in which a provider that repeats its key in an error does not give it away."""
    if key and key.encode() in reply.body:
        body = reply.body.replace(key.encode(), _HIDDEN.encode())
        return replace(reply, body=body, content=json_object(body))
    return reply
