"""Two routers, one ledger, a mock engine, many requests, and one router killed in the middle: does the money add up?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from leanmodel_api.budget import Budget
from leanmodel_api.keys import SUFFIX, KeyEntry, KeyLimits, issue
from leanmodel_api.ledger import RedisAt
from leanmodel_api.router import Backend, RouterSettings
from leanmodel_api.serving import Price
from leanmodel_serving.ledger.books import MODEL, Line
from leanmodel_serving.ledger.file import LEASE_S, LedgerFile, spent_ever
from leanmodel_serving.ledger.redis_store import RedisLedger

PROMPT_NANO, ANSWER_NANO = 370, 1130
"""Odd prices, so that a request costs no whole number of micro-dollars."""
PRICE = Price(input_usd_per_million_tokens="0.37", output_usd_per_million_tokens="1.13")
MOST_PROMPT, MOST_ANSWER = 10**9, 10**6
"""Tokens that an answer says at most: no real one has as many, but by such costs each request can be told."""
MOST_LOST = 40
START_S = 120.0
MODEL_NAME = "m"


@dataclass
class Asked:
    """One request: what it must cost, in nano-dollars, and by whose key."""

    key: str
    nano: int
    said: int | None = None


@dataclass
class Outcome:
    """What a run found."""

    answered: list[Asked] = field(default_factory=list)
    lost: list[Asked] = field(default_factory=list)
    ledger: dict[str, Line] = field(default_factory=dict)
    reserved_later: int = 0
    killed_after: int = 0
    seconds: float = 0.0

    @property
    def wrong(self) -> list[str]:
        """Return what does not add up, in words; nothing when all does."""
        found = [f"an answer of {one.nano} said {one.said}" for one in self.answered if one.said != one.nano]
        by_account: Counter[str] = Counter()
        for one in self.answered:
            by_account[MODEL] += one.nano
            by_account[one.key] += one.nano
        for account, told in by_account.items():
            line = self.ledger.get(account, Line())
            lost = [one.nano for one in self.lost if account in (MODEL, one.key)]
            count = (
                len(self.answered) if account == MODEL else sum(one.key == account for one in self.answered)
            )
            if not explained(line.spent - told, line.requests - count, lost):
                found.append(
                    f"account {account or 'of all'}: {line.spent} spent, {told} answered, lost {lost}"
                )
        if self.reserved_later:
            found.append(f"{self.reserved_later} stay reserved after the lease")
        return found


def explained(nano: int, count: int, lost: list[int]) -> bool:
    """Return whether so many of the lost requests cost exactly so much: settled, and killed before the last byte.

    Costs are numbers of twelve digits by lot, so that hardly two choices of them have one sum. The halves of the list
    are tried apart, and met in the middle.
    """
    if not 0 <= count <= len(lost) <= MOST_LOST:
        return False
    half = len(lost) // 2
    left = {(len(chosen), sum(chosen)) for chosen in _choices(lost[:half])}
    return any((count - len(chosen), nano - sum(chosen)) in left for chosen in _choices(lost[half:]))


def _choices(items: list[int]) -> Iterator[tuple[int, ...]]:
    return itertools.chain.from_iterable(
        itertools.combinations(items, size) for size in range(len(items) + 1)
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def engine(request: web.Request) -> web.StreamResponse:
    """Answer ``P C`` with a usage of P and C tokens, after some milliseconds; a router that warms up says Hello."""
    body = await request.json()
    prompt, answer = (1, 1) if body["prompt"] == "Hello" else map(int, body["prompt"].split())
    usage = {"prompt_tokens": prompt, "completion_tokens": answer}
    choice = {"index": 0, "text": "x", "logprobs": None, "finish_reason": "stop"}
    await asyncio.sleep(random.random() * 0.02)
    if not body.get("stream"):
        return web.json_response({"model": body["model"], "choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    with contextlib.suppress(ConnectionError):  # its router was killed
        await response.prepare(request)
        for chunk in ({"choices": [choice], "usage": None}, {"choices": [], "usage": usage}):
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
            await asyncio.sleep(0.002)
        await response.write(b"data: [DONE]\n\n")
    return response


class Routers:
    """Two processes on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, (free_port(), free_port())
        self.running: list[subprocess.Popen[bytes]] = []
        for number in (0, 1):
            self.running.append(self._start(number))

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("router_process.py")
        with (self.folder / f"router-{number}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(script), str(self.folder), str(self.ports[number])],
                stdout=log,
                stderr=log,
            )

    def kill(self, number: int) -> None:
        self.running[number].send_signal(signal.SIGKILL)
        self.running[number].wait()

    def restart(self, number: int) -> None:
        self.running[number] = self._start(number)

    def end(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


async def up(session: aiohttp.ClientSession, port: int) -> None:
    """Return once a router answers."""
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"http://127.0.0.1:{port}/healthz") as reply:
                await reply.read()
                return
        assert time.monotonic() < deadline, "a router does not come up"
        await asyncio.sleep(0.1)


async def ask(
    session: aiohttp.ClientSession, port: int, key: str, prompt: int, answer: int, stream: bool
) -> int:
    """Return the cost that a whole answer said.

    Raises:
        aiohttp.ClientError, ConnectionError: it did not come whole.
    """
    body = {"model": MODEL_NAME, "prompt": f"{prompt} {answer}", "max_tokens": 1000}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    url, headers = f"http://127.0.0.1:{port}/v1/completions", {"authorization": f"Bearer {key}"}
    async with session.post(url, json=body, headers=headers) as reply:
        text = await reply.text()
        assert reply.status == 200, f"{reply.status}: {text}"
        if not stream:
            return round(float(reply.headers["x-leanmodel-cost-usd"]) * 1e9)
    events = text.strip().split("\n\n")
    if events[-1] != "data: [DONE]":
        raise ConnectionError("a stream that broke off")
    return round(float(json.loads(events[-2].removeprefix("data: "))["usage"]["cost_usd"]) * 1e9)


def prepared(folder: Path, engine_port: int) -> list[tuple[str, KeyEntry]]:
    """Write settings and two keys."""
    keys = [issue(tenant, KeyLimits(budget=Budget(usd_per_day="400000000")), "2026-11-22T00:00:00+00:00")
            for tenant in ("team-a", "team-b")]  # fmt: skip
    (folder / "keys").mkdir()
    for _, entry in keys:
        (folder / "keys" / f"{entry.id}{SUFFIX}").write_text(entry.to_json())
    settings = RouterSettings(
        model=MODEL_NAME, access="Keys", budget=Budget(usd_per_hour="100000000", usd_per_day="500000000"),
        large=Backend(revision="large", url=f"http://127.0.0.1:{engine_port}", price=PRICE),
    )  # fmt: skip
    (folder / "router.json").write_text(settings.to_json())
    return keys


async def run(
    folder: Path, requests: int, clients: int, seed: int = 0, redis: RedisAt | None = None
) -> Outcome:
    """Have ``requests`` answered by two routers, one of which is killed when half of them are, and started again.

    Args:
        redis: what keeps the ledger; None: a file in the folder does.
    """
    if redis is not None:
        (folder / "redis.json").write_text(redis.to_json())
    lots, found = random.Random(seed), Outcome()
    served = web.Application()
    served.router.add_post("/v1/completions", engine)
    runner = web.AppRunner(served)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    keys = prepared(folder, runner.addresses[0][1])
    routers = Routers(folder)
    todo = [(lots.choice(keys), lots.randint(1, MOST_PROMPT), lots.randint(1, MOST_ANSWER), lots.random() < 0.5)
            for _ in range(requests)]  # fmt: skip
    back = asyncio.Event()
    back.set()

    async def client(session: aiohttp.ClientSession, first: int) -> None:
        for turn in itertools.count(first):
            if not todo:
                return
            (key, entry), prompt, answer, stream = work = todo.pop()
            asked = Asked(entry.id, prompt * PROMPT_NANO + answer * ANSWER_NANO)
            try:
                asked.said = await ask(session, routers.ports[turn % 2], key, prompt, answer, stream)
                found.answered.append(asked)
            except (aiohttp.ClientError, ConnectionError):
                found.lost.append(asked)
                todo.append(work)  # asked anew, of the other router
                if turn % 2:
                    await back.wait()

    async def killer(session: aiohttp.ClientSession) -> None:
        while len(found.answered) < requests // 2:
            await asyncio.sleep(0.001)
        back.clear()
        routers.kill(1)
        found.killed_after = len(found.answered)
        routers.restart(1)
        await up(session, routers.ports[1])
        back.set()

    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
            for port in routers.ports:
                await up(session, port)
            begun = time.perf_counter()
            await asyncio.gather(killer(session), *(client(session, number) for number in range(clients)))
            found.seconds = time.perf_counter() - begun
    finally:
        await asyncio.to_thread(routers.end)
        await runner.cleanup()
    found.ledger = _kept(folder, redis)
    after = LedgerFile(folder / "ledger.db") if redis is None else RedisLedger(redis)
    after.apply([], "auditor", time.time() + LEASE_S + 1)
    after.close()
    found.reserved_later = sum(line.reserved for line in _kept(folder, redis).values())
    return found


def _kept(folder: Path, redis: RedisAt | None) -> dict[str, Line]:
    return spent_ever(folder / "ledger.db") if redis is None else RedisLedger(redis).spent_ever()
