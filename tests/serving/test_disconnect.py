"""A client that goes away stops the engine, whole answers and streams, lean and large."""

from __future__ import annotations

import json
import socket
import time

import pytest
from serving_support import LARGE, LEAN, NAME, Stack, sample, until


def _hang_up(stack: Stack, body: dict[str, object], revision: str) -> None:
    """Ask over a bare socket, wait until the engine is at work, and close."""
    raw = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(raw)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", stack.port)) as client:
        client.sendall(head.encode() + raw)
        until(lambda: stack.running(revision) == 1.0, 30.0, "the engine is at work")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("revision", [LARGE, LEAN])
def test_hanging_up_stops_the_engine(pair: Stack, stream: bool, revision: str) -> None:
    if revision == LEAN:
        pair.configure(lean=pair.backend(LEAN), strategy="AllLean")
    before = sample(pair.metrics(), "ray_leanmodel_requests_total", status="499")
    body = {"model": NAME, "prompt": "Once", "max_tokens": 1000, "ignore_eos": True, "stream": stream}
    _hang_up(pair, body, revision)
    gone = time.monotonic()
    until(lambda: pair.running(revision) == 0.0, 5.0, "the engine has stopped")
    # A thousand tokens take far longer: it stopped because nobody listens.
    assert time.monotonic() - gone < 5.0
    generated = sample(pair.internal(revision, "/metrics").text, "vllm:request_generation_tokens_count")
    assert generated >= 0.0
    until(
        lambda: sample(pair.metrics(), "ray_leanmodel_requests_total", status="499") == before + 1,
        15.0,
        "the request is counted as given up",
    )


def test_the_router_still_answers_after_many_hung_up(pair: Stack) -> None:
    body = {"model": NAME, "prompt": "Once", "max_tokens": 1000, "ignore_eos": True}
    for _ in range(5):
        _hang_up(pair, body, LARGE)
        until(lambda: pair.running(LARGE) == 0.0, 5.0, "the engine has stopped")
    assert pair.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).status_code == 200
