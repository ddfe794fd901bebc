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
    ("codes", "words", "paths"),
    [
        ({CHAT: 200}, "", [CHAT]),
        ({CHAT: 400, TEXT: 200}, "", [CHAT, TEXT]),
        ({CHAT: 400, TEXT: 400}, "/v1/completions: 400 Bad Request", [CHAT, TEXT]),
        ({CHAT: 503, TEXT: 200}, "/v1/chat/completions: 503 Service Unavailable", [CHAT]),
        ({CHAT: 401, TEXT: 200}, "/v1/chat/completions: 401 Unauthorized", [CHAT]),
    ],
)
def test_a_model_without_a_chat_template_is_asked_for_a_text(
    codes: dict[str, int], words: str, paths: list[str]
) -> None:
    with router(codes) as (address, asked):
        assert probe.refusal(address, "m", "large-1", "token") == words
    assert [path for path, _ in asked] == paths
    assert {text for _, text in asked} == {"Hello"}


@pytest.mark.parametrize("code", [200, 400])
def test_a_classifier_is_asked_for_a_label_alone(code: int) -> None:
    with router({"/classify": code}) as (address, asked):
        assert (probe.refusal(address, "m", "large-1", "token", TASK) == "") is (code == 200)
    assert [path for path, _ in asked] == ["/classify"]


def test_the_words_of_an_error_are_the_ones_of_its_body_on_one_line_and_not_without_end() -> None:
    body = {"error": {"message": "the model\n runs out of memory " + "." * 1000, "code": 500}}
    with router({CHAT: 500}, body) as (address, _):
        found = probe.refusal(address, "m", "large-1", "token")
    assert found.startswith("/v1/chat/completions: 500 the model runs out of memory ...")
    assert len(found) < 400


def test_an_answer_without_a_token_and_nobody_there_are_no_generation() -> None:
    with router({CHAT: 200}, {"choices": []}) as (address, _):
        assert probe.refusal(address, "m", "large-1", "token") == f"{CHAT}: an answer without choices"
    assert "refused" in probe.refusal(address, "m", "large-1", "token")
