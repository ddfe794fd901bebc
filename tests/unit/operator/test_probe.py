"""The probe that decides whether a model answers: a chat, and a text where the model has no chat."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from leanmodel_api.classification import TASK
from leanmodel_operator import probe

ANSWER = {"choices": [{"text": "."}], "data": [{"label": "ham"}]}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@contextmanager
def router(codes: dict[str, int], answer: object = ANSWER) -> Iterator[tuple[str, list[tuple[str, object]]]]:
    """A router that answers with these codes by path, 404 elsewhere; its address, and what it was asked."""
    asked: list[tuple[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            path = self.path.removeprefix("/internal/revisions/large-1")
            asked.append((path, body.get("prompt") or body.get("input") or body["messages"][0]["content"]))
            content = json.dumps(answer).encode()
            self.send_response(codes.get(path, 404))
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("codes", "generates", "paths"),
    [
        ({CHAT: 200}, True, [CHAT]),
        ({CHAT: 400, TEXT: 200}, True, [CHAT, TEXT]),
        ({CHAT: 400, TEXT: 400}, False, [CHAT, TEXT]),
        ({CHAT: 503, TEXT: 200}, False, [CHAT]),
        ({CHAT: 401, TEXT: 200}, False, [CHAT]),
    ],
)
def test_a_model_without_a_chat_template_is_asked_for_a_text(
    codes: dict[str, int], generates: bool, paths: list[str]
) -> None:
    with router(codes) as (address, asked):
        assert probe.generates(address, "m", "large-1", "token") is generates
    assert [path for path, _ in asked] == paths
    assert {text for _, text in asked} == {"Hello"}


@pytest.mark.parametrize("code", [200, 400])
def test_a_classifier_is_asked_for_a_label_alone(code: int) -> None:
    with router({"/classify": code}) as (address, asked):
        assert probe.generates(address, "m", "large-1", "token", TASK) is (code == 200)
    assert [path for path, _ in asked] == ["/classify"]


def test_an_answer_without_a_token_and_nobody_there_are_no_generation() -> None:
    with router({CHAT: 200}, {"choices": []}) as (address, _):
        assert not probe.generates(address, "m", "large-1", "token")
    assert not probe.generates(address, "m", "large-1", "token")
