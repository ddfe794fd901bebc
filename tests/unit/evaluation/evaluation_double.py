"""A small HTTP server that speaks the engine's part of OpenAI's API with answers that are known.

It stands in for the remote engines behind the router's internal route; everything on this side of the
wire is the real Job.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "prove-me"


@dataclass
class Reply:
    """What a model answers: text, the log-probability of its first token, or an HTTP error."""

    text: str
    logprob: float = -0.01
    status: int = 200
    tokens: int = 2
    seconds: float = 0.0


Model = Callable[[str], Reply]


@dataclass
class Double:
    """The server; ``models`` by revision, from the prompt's text to what is answered."""

    models: dict[str, Model]
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    fail_first: int = 0
    metrics: dict[str, str] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)
    hold_after: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Double:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def asked_of(self, revision: str) -> int:
        return sum(count for (name, _), count in self.asked.items() if name == revision)


def _prompt(body: dict[str, Any]) -> str:
    if "input" in body:
        return str(body["input"])
    return str(body["prompt"]) if "prompt" in body else str(body["messages"][-1]["content"])


def _handler(double: Double) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:  # noqa: N802
            revision = self.path.split("/")[3] if self.path.startswith("/internal/revisions/") else ""
            text = double.metrics.get(revision) if self.path.endswith("/metrics") else None
            self._send(404 if text is None else 200, (text or "").encode(), "text/plain")

        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._json(401, {"error": {"message": "who are you?"}})
            revision = self.path.split("/")[3]
            if revision not in double.models:
                return self._json(404, {"error": {"message": f"no revision {revision}"}})
            key = (revision, json.dumps({**body, "model": ""}, sort_keys=True))
            with double.lock:
                double.asked[key] += 1
                double.headers.append(dict(self.headers))
                double.bodies.append(body)
                total = sum(double.asked.values())
                failing = double.fail_first > 0
                double.fail_first -= failing
            if failing:
                return self._json(503, {"error": {"message": "warming up"}})
            if double.hold_after is not None and total > double.hold_after:
                double.gate.wait(60)
            reply = double.models[revision](_prompt(body))
            if reply.seconds:
                threading.Event().wait(reply.seconds)
            if reply.status != 200:
                return self._json(reply.status, {"error": {"message": reply.text}})
            self._json(200, _content(body, reply, self.path))
            with double.lock:
                double.answered[key] += 1

        def _json(self, status: int, content: object) -> None:
            self._send(status, json.dumps(content).encode(), "application/json")

        def _send(self, status: int, data: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def _content(body: dict[str, Any], reply: Reply, path: str) -> dict[str, Any]:
    words = len(_prompt(body).split())
    if path.endswith("/classify"):
        sure = math.exp(reply.logprob)
        item = {"index": 0, "label": reply.text, "probs": [1 - sure, sure], "num_classes": 2}
        return {"object": "list", "data": [item], "usage": {"prompt_tokens": words, "total_tokens": words}}
    if path.endswith("/v1/embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": reply.text}
        return {"object": "list", "data": [vector], "usage": {"prompt_tokens": words, "total_tokens": words}}
    usage = {"prompt_tokens": words, "completion_tokens": reply.tokens, "total_tokens": words + reply.tokens}
    chosen = [reply.logprob] + [-0.001] * (reply.tokens - 1)
    tops = [[value, min(value - 0.1, -2.0)] for value in chosen]
    if body.get("prompt_logprobs") is not None:
        listed = [None] + [
            {str(i): {"logprob": reply.logprob, "rank": 1, "decoded_token": "x"}} for i in range(words)
        ]
        return {
            "choices": [{"text": "x", "finish_reason": "length"}],
            "prompt_logprobs": listed,
            "usage": usage,
        }
    if path.endswith("/chat/completions"):
        content = [
            {
                "token": "t",
                "logprob": value,
                "top_logprobs": [{"token": "t", "logprob": each} for each in top],
            }
            for value, top in zip(chosen, tops, strict=True)
        ]
        choice: dict[str, Any] = {
            "message": {"role": "assistant", "content": reply.text},
            "logprobs": {"content": content},
        }
    else:
        choice = {"text": reply.text, "logprobs": {
            "tokens": ["t"] * reply.tokens, "token_logprobs": chosen,
            "top_logprobs": [{"a": top[0], "b": top[1]} for top in tops]}}  # fmt: skip
    return {"object": "chat.completion", "choices": [{**choice, "finish_reason": "stop"}], "usage": usage}
