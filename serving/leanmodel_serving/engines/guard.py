"""An ASGI wrapper that keeps an engine to those who hold its token.

Every application of the node is reachable through the same public port, engines included; without this a client
could step around the router and its money.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def bearer(scope: Scope) -> bytes:
    """Return the request's bearer token, or nothing when it carries none."""
    for name, value in scope.get("headers", ()):
        if name == b"authorization":
            scheme, _, token = bytes(value).partition(b" ")
            return token.strip() if scheme.lower() == b"bearer" else b""
    return b""


def guarded(app: App, token: str) -> App:
    """Return ``app`` behind the token: requests without it are answered 401 in OpenAI's form."""
    wanted = token.encode()
    if not wanted:
        raise ValueError("the engines' token is empty: write a random one into its file")
    refusal = json.dumps(
        {
            "error": {
                "message": "this address is internal; ask the router under /v1",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            }
        }
    ).encode()

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or hmac.compare_digest(bearer(scope), wanted):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": refusal})

    return guard
