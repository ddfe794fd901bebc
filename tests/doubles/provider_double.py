"""An external provider on loopback that writes down whatever reaches it, and settings that name it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from leanmodel_api.external import ExternalAccess, Patience, Permission, Provider
from leanmodel_api.serving import Price

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KEY = "sk-very-secret-0123456789"
PRICE = Price(input_usd_per_million_tokens="2", output_usd_per_million_tokens="4")
COST = (3 * 2 + 5 * 4) / 1e6
"""Of one answer of :func:`sound`."""


def completion(text: str = "from provider") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "text": text, "message": message, "finish_reason": "stop"}
    return {
        "model": "theirs-2026",
        "choices": [choice],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
    }


async def opened(request: web.Request) -> web.StreamResponse:
    """Begin a stream."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    return response


async def say(response: web.StreamResponse, *datas: Any) -> None:
    for data in datas:
        text = data if isinstance(data, str) else json.dumps(data)
        await response.write(f"data: {text}\n\n".encode())


async def sound(request: web.Request) -> web.StreamResponse:
    """What a provider does that is well."""
    found = completion()
    if not (await request.json()).get("stream"):
        return web.json_response(found)
    response = await opened(request)
    await say(response, {**found, "usage": None}, {**found, "choices": []}, "[DONE]")
    return response


@dataclass
class Recorded:
    """What reached the provider.

    Attributes:
        connections: TCP connections opened to it, whatever they carried.
        requests: path, headers and body of each request.
        hung_up: how many requests were given up by the router.
    """

    url: str = ""
    connections: int = 0
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    hung_up: int = 0
    behaviour: Handler = sound

    @property
    def touched(self) -> bool:
        return bool(self.connections or self.requests)


@asynccontextmanager
async def provider(behaviour: Handler = sound) -> AsyncIterator[Recorded]:
    """A provider that behaves as told and records."""
    import asyncio

    found = Recorded(behaviour=behaviour)

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        raw = await request.read()
        found.requests.append((request.path, headers, json.loads(raw) if raw else {}))
        try:
            return await found.behaviour(request)
        except asyncio.CancelledError:
            found.hung_up += 1
            raise

    class Counting(web.Server):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            found.connections += 1
            return super().__call__(*args, **kwargs)

    server = Counting(handle, handler_cancellation=True)  # type: ignore[arg-type]
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield found
    finally:
        listening.close()
        await server.shutdown(1.0)


def access(
    url: str, folder: Path | None, permission: Permission = "Allowed", **changes: Any
) -> ExternalAccess:
    """Settings that name a provider, with its key in a folder."""
    key = None
    if folder is not None:
        key = str(folder / "apiKey")
        (folder / "apiKey").write_text(KEY + "\n")
    patience = changes.pop("patience", Patience(first_byte_timeout=5.0, idle_timeout=5.0))
    found = Provider(
        base_url=url, model="theirs", key_file=key, price=PRICE,
        **{"accepts": ["Tools"], "patience": patience, **changes},
    )  # fmt: skip
    return ExternalAccess(permission=permission, provider=found)
