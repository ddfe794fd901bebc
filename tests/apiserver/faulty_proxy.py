"""A proxy before the API server: counts and records what passes, and breaks what a test wants broken.

It speaks plain HTTP on loopback and passes on over TLS: with the administrator's certificate, or, where a request
carries a bearer token, with that token alone.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
PASSED_ON = ("Accept", "Authorization", "Content-Type")


@dataclass
class Call:
    """A request as Kubernetes' authorisation sees it.

    Attributes:
        number: which write it is, from 1 on; 0 for what only reads, and for Leases, which the clock drives.
        status: that the API server answered; 0 when it was not asked or did not answer.
    """

    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    number: int = 0
    status: int = 0

    @property
    def writes(self) -> bool:
        """Says whether it changes anything."""
        return self.verb in VERBS.values()


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one call; the first that is set counts.

    Attributes:
        status: answered instead of asking the API server, with `retry_after` seconds when there are any.
        lost: the API server is asked, and its answer never arrives.
        hang: nothing is asked or answered for so many seconds; then the connection is cut.
        held: the call is passed on once the event is set.
        cut: a watch ends in the middle of a line after so many events.
        gone: a watch is told by an event that its version is too old (410).
    """

    status: int = 0
    retry_after: int = 0
    lost: bool = False
    hang: float = 0.0
    held: threading.Event | None = None
    cut: int = 0
    gone: bool = False


@dataclass
class Rules:
    """What a test wants: faults by call, and to be told of each write once the API server has carried it out."""

    fault: Callable[[Call], Fault | None] = lambda call: None
    wrote: Callable[[Call], None] = lambda call: None
    calls: list[Call] = field(default_factory=list)


class Proxy:
    """One proxy with a thread of its own."""

    def __init__(self, url: str, authority: Path, certificate: Path, key: Path) -> None:
        """Starts listening; ``self.url`` says where."""
        self._upstream, self._authority, self._pair = url, authority, (certificate, key)
        self.rules = Rules()
        self._writes = 0
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        started: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        self.url = started.result(10)

    def close(self) -> None:
        """Ends it; what is open is cut."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)

    def used(self) -> set[tuple[str, str, str]]:
        """Returns what rights were used: (group, resource with its part, verb)."""
        calls = [call for call in list(self.rules.calls) if call.resource]
        # To apply what is not there yet takes the right to create it as well.
        made = {(c.group, c.resource, "create") for c in calls if c.verb == "patch" and c.status == 201}
        return made | {(call.group, call.resource, call.verb) for call in calls}

    # ------------------------------------------------------------ inside of its thread

    def _run(self, started: Future[str]) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))
        # Open watches would wait for ever for an event.
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _serve(self, started: Future[str]) -> None:
        plain = ssl.create_default_context(cafile=str(self._authority))
        admin = ssl.create_default_context(cafile=str(self._authority))
        admin.load_cert_chain(*self._pair)
        async with _session(plain) as self._plain, _session(admin) as self._admin:
            runner = web.ServerRunner(web.Server(self._pass, access_log=None), shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            started.set_result(f"http://{host}:{port}")
            await self._closing.wait()
            await runner.cleanup()

    async def _pass(self, request: web.BaseRequest) -> web.StreamResponse:
        call = understood(request.method, request.path, dict(request.query))
        if call.writes and call.resource != "leases":
            self._writes += 1
            call.number = self._writes
        self.rules.calls.append(call)
        fault = self.rules.fault(call) or Fault()
        if fault.status:
            headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
            return web.json_response(refusal(fault.status), status=fault.status, headers=headers)
        if fault.hang:
            await asyncio.sleep(fault.hang)
            return _cut(request)
        if fault.held is not None:
            await asyncio.to_thread(fault.held.wait)
        body = await request.read()
        session = self._plain if "Authorization" in request.headers else self._admin
        headers = {key: request.headers[key] for key in PASSED_ON if key in request.headers}
        address = URL(self._upstream + request.raw_path, encoded=True)
        try:
            async with session.request(request.method, address, data=body or None, headers=headers) as answer:
                call.status = answer.status
                if call.verb == "watch" and answer.status == 200:
                    return await self._watch(request, answer, fault)
                content = await answer.read()
        except aiohttp.ClientError:  # the API server is away
            return _cut(request)
        if call.number and answer.status < 400:
            self.rules.wrote(call)
        if fault.lost:
            return _cut(request)
        kept = {key: answer.headers[key] for key in ("Content-Type", "Retry-After") if key in answer.headers}
        return web.Response(status=answer.status, body=content, headers=kept)

    async def _watch(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, fault: Fault
    ) -> web.StreamResponse:
        told = web.StreamResponse(headers={"Content-Type": "application/json"})
        told.enable_chunked_encoding()
        await told.prepare(request)
        if fault.gone:
            await told.write(json.dumps({"type": "ERROR", "object": refusal(410)}).encode() + b"\n")
            return told
        events = 0
        async for line in answer.content:
            events += 1
            if fault.cut and events >= fault.cut:
                await told.write(line[: len(line) // 2])
                return _cut(request)
            await told.write(line)
        return told


def understood(method: str, path: str, query: dict[str, str]) -> Call:
    """Returns what a request asks for, as the API server's authorisation would name it."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"]:
        group, parts = "", parts[2:]
    elif parts[:1] == ["apis"]:
        group, parts = (parts[1] if len(parts) > 1 else ""), parts[3:]
    else:
        group, parts = "", []
    namespace = ""
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    resource, name, part = ([*parts, "", "", ""])[:3]
    if method == "GET":
        verb = "watch" if "watch" in query else "get" if name else "list"
    else:
        verb = VERBS.get(method, method.lower())
    return Call(verb, group, f"{resource}/{part}" if part else resource, namespace, name)


def refusal(code: int) -> dict[str, Any]:
    """Returns the Status object of an error."""
    reasons = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}
    return {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reasons.get(code, ""),
        "message": f"made by the test: {code}",
    }  # fmt: skip


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    # A line of a watch is a whole object: longer than what aiohttp takes by itself.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=2**24,
    )


def _cut(request: web.BaseRequest) -> web.StreamResponse:
    """Cuts the client's connection without another word."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
