"""An OpenAI-compatible provider in the test's own process, over real HTTP, that writes down whatever reaches it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-very-secret-0123456789"


@dataclass(frozen=True)
class Said:
    """One reply: its status, body and headers; ``hang_up`` breaks the connection off instead."""

    status: int = 200
    content: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False


def completion(text: str | None, finish: str = "stop", prompt: int = 20, answer: int = 3) -> Said:
    """A chat completion that counts so many tokens."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Said(content={"object": "chat.completion", "choices": [choice], "usage": usage})


def failure(status: int, message: str = "no", code: str = "", **headers: str) -> Said:
    """An error in OpenAI's form."""
    return Said(
        status,
        {"error": {"message": message, "code": code}},
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


@dataclass
class Teacher:
    """The provider.

    Attributes:
        url: its base address.
        answer: takes a request's body and its number (from 0), returns the reply.
        requests: bodies in the order in which they came.
        keys: what stood in the header authorization of each.
        most: the most calls that were under way at once.
    """

    answer: Callable[[dict[str, Any], int], Said]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    most: int = 0
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def prompts(self) -> list[str]:
        """Return the users' messages that came, in order."""
        return [body["messages"][-1]["content"] for body in self.requests]

    def take(self, body: dict[str, Any], key: str) -> Said:
        """Note a request and answer it."""
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
            self.keys.append(key)
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        try:
            return self.answer(body, number)
        finally:
            with self._lock:
                self._under_way -= 1


@contextmanager
def teacher(answer: Callable[[dict[str, Any], int], Said]) -> Iterator[Teacher]:
    """Run a provider on a free port of loopback."""
    found = Teacher(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # noqa: N802 - the base class calls it so
            raw = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/chat/completions", self.path
            said = found.take(json.loads(raw), self.headers.get("authorization", ""))
            if said.hang_up:
                self.close_connection = True
                return
            body = json.dumps(said.content).encode()
            self.send_response(said.status)
            for name, value in {**said.headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def declared(url: str, **more: Any) -> dict[str, Any]:
    """Return spec.teacher for a provider: a dollar per million tokens of prompts, two of answers."""
    price = {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "2"}
    return {
        "external": {"baseUrl": url, "model": "theirs"}, "price": price, "maxCalls": 10_000, "maxUSD": "5",
        "maxTokens": 8, **more,
    }  # fmt: skip


def access(url: str, permission: str = "Allowed", **more: Any) -> dict[str, Any]:
    """Return a plan's externalTeacher."""
    return {"permission": permission, "teacher": declared(url, **more)}
