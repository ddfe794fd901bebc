"""Clients that leave, and an engine that is killed, before real vLLM: nothing goes on at an engine, and errors are OpenAI's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from counting_engine import CountingEngine, counting_engine
from serving_support import LARGE, NAME, Stack, alive, policy, sample, until

from leanmodel_api.policy import Scope
from leanmodel_api.router import Backend

pytestmark = pytest.mark.long

CLIENTS, TOKENS = 6, 900
STOP_S = 60.0
PREFIX = Scope(endpoint="completions", temperature=0.0, decision="first-1-tokens")
LEAVING = ("close", "reset", "half-close")


def sent(stack: Stack, number: int, stream: bool) -> socket.socket:
    """Ask for a long answer over a bare socket; with temperature 0 the small model goes round in circles and does not end."""
    asked = {
        "model": NAME, "prompt": f"Number{number} {TOKENS}", "temperature": 0, "max_tokens": TOKENS, "stream": stream,
    }  # fmt: skip
    raw = json.dumps(asked).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(raw)}\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", stack.port), timeout=60.0)
    client.sendall(head.encode() + raw)
    return client


def begun(client: socket.socket) -> bytes:
    """Read until the first event of a stream is here; return all that was read."""
    text = b""
    while b"data: {" not in text:
        piece = client.recv(65536)
        assert piece, text
        text += piece
    return text


def leave(client: socket.socket, way: str) -> None:
    """Go, as clients do: politely, by a reset, or by saying first that nothing more is sent."""
    if way == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if way == "half-close":
        client.shutdown(socket.SHUT_WR)
    client.close()


def at_work(stack: Stack, revision: str) -> float:
    """Requests that vLLM computes or has waiting."""
    text = stack.internal(revision, "/metrics").text
    return sample(text, "vllm:num_requests_running") + sample(text, "vllm:num_requests_waiting")


def generated(stack: Stack) -> float:
    return sample(stack.internal(LARGE, "/metrics").text, "vllm:generation_tokens_total")


@pytest.fixture(scope="module")
def double() -> Iterator[CountingEngine]:
    """The other model of a pair, which goes on for as long as somebody listens."""
    loop, up, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[CountingEngine] = []

    async def serve() -> None:
        async with counting_engine() as engine:
            found.append(engine)
            up.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert up.wait(30)
    yield found[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()


@pytest.fixture
def idle(stack: Stack, double: CountingEngine) -> Iterator[Stack]:
    """The host with vLLM at rest, before and after."""
    until(lambda: at_work(stack, LARGE) == 0, STOP_S, "vLLM is idle")
    try:
        yield stack
        until(lambda: at_work(stack, LARGE) == 0, STOP_S, "vLLM is idle again")
        until(lambda: not double.running.total(), STOP_S, "and so is the other model")
    finally:
        stack.configure()


@pytest.mark.parametrize("role", ["winner, lean", "loser, lean", "winner, large"])
def test_streams_decided_on_their_first_tokens_leave_nothing_behind(
    idle: Stack, double: CountingEngine, role: str
) -> None:
    ours, other = idle.backend(LARGE), Backend(revision="double", url=double.url)
    large, lean = (ours, other) if role.endswith("large") else (other, ours)
    threshold, route = (1e-9, b"lean") if role == "winner, lean" else (1.0, b"escalated")
    idle.configure(large=large, lean=lean, strategy="Cascade", policy=policy(threshold, PREFIX))
    before = generated(idle)
    clients = [sent(idle, number, stream=True) for number in range(CLIENTS)]
    for client in clients:
        assert b"x-leanmodel-route: " + route in begun(client).lower()
    if role == "loser, lean":
        # It was asked for as many tokens as the large one, and is not left to make them.
        until(lambda: at_work(idle, LARGE) == 0, STOP_S, "the loser was stopped")
        assert double.running["double"] == CLIENTS, "while the winner is at work"
    else:
        assert at_work(idle, LARGE) == CLIENTS and not double.running.total()
    for number, client in enumerate(clients):
        leave(client, LEAVING[number % len(LEAVING)])
    until(lambda: at_work(idle, LARGE) == 0, STOP_S, "vLLM has stopped")
    assert generated(idle) - before < CLIENTS * TOKENS / 2, "aborted, not finished"


def test_clients_that_leave_before_anything_is_decided_leave_nothing_behind(
    idle: Stack, double: CountingEngine
) -> None:
    """Whole answers, and streams that are judged whole: the lean model is at work, and nothing is out yet."""
    other = Backend(revision="double", url=double.url)
    idle.configure(large=other, lean=idle.backend(LARGE), strategy="Cascade", policy=policy(1e-9, Scope()))
    before, asked = generated(idle), double.asked.total()
    clients = [sent(idle, number, stream=number % 2 == 0) for number in range(CLIENTS)]
    until(lambda: at_work(idle, LARGE) == CLIENTS, STOP_S, "the lean model is at work")
    for number, client in enumerate(clients):
        leave(client, LEAVING[number % len(LEAVING)])
    until(lambda: at_work(idle, LARGE) == 0, STOP_S, "the lean model has stopped")
    assert generated(idle) - before < CLIENTS * TOKENS / 2 and double.asked.total() == asked


def test_an_engine_that_is_killed_is_told_in_openais_form_and_comes_back(idle: Stack) -> None:
    (victim,) = [pid for pid in idle.replica_pids(LARGE) if alive(pid)]
    client = sent(idle, 0, stream=True)
    text = begun(client)
    with ThreadPoolExecutor(1) as pool:
        body = {"prompt": "Once", "max_tokens": TOKENS, "ignore_eos": True}
        whole = pool.submit(idle.post, "/v1/completions", body)
        until(lambda: at_work(idle, LARGE) == 2, 30.0, "both are computed")
        os.kill(victim, signal.SIGKILL)
        while piece := client.recv(65536):
            text += piece
            if text.endswith(b"0\r\n\r\n"):
                break
        reply = whole.result()
    client.close()
    datas = [line[6:] for line in text.splitlines() if line.startswith(b"data: ")]
    assert datas[-1] == b"[DONE]"
    assert json.loads(datas[-2])["error"]["code"] == "bad_gateway"
    assert reply.status_code in (200, 502, 503, 504), "a second try may have waited for the next engine"
    if reply.status_code != 200:
        assert int(reply.headers["retry-after"]) > 0
        assert reply.json()["error"]["code"] in ("bad_gateway", "engine_unavailable", "engine_timeout")
    short = {"prompt": "a", "max_tokens": 1}
    statuses = set()

    def answers() -> bool:
        found = idle.post("/v1/completions", short)
        statuses.add(found.status_code)
        assert found.status_code == 200 or found.json()["error"]["message"]
        return found.status_code == 200

    until(answers, 300.0, "Serve has replaced the engine")
    assert statuses <= {200, 502, 503, 504}
    until(lambda: idle.status()["applications"][LARGE].get("ready"), 60.0, "the host says so too")
    assert at_work(idle, LARGE) == 0 and victim not in idle.replica_pids(LARGE)
