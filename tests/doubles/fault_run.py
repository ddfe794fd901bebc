"""Faults before real router processes: one killed under open streams, and policies changed under load."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from counting_engine import CountingEngine, counting_engine, text
from ledger_run import MODEL_NAME, Routers, up
from policies_made import made

from leanmodel_api.policy import Scope
from leanmodel_api.router import Backend, RouterSettings, Watching
from leanmodel_api.routing_policy import RoutingPolicy

TOKENS, HELD = 12, 2
SCOPE = Scope(endpoint="completions", decision=Scope.reading(HELD), temperature=0.0)


def body(prompt: str, stream: bool) -> dict[str, Any]:
    """What is asked."""
    return {"model": MODEL_NAME, "prompt": prompt, "stream": stream, "temperature": 0}


def settings(url: str, **changes: Any) -> RouterSettings:
    """A cascade before one engine that is both models, and accepts; ``changes`` are further settings."""
    policy = made("cascade", scope=SCOPE, threshold=0.4, scores=None)
    large, lean = (Backend(revision=name, url=url) for name in ("large", "lean"))
    rules = {"strategy": "Cascade", "policy": policy, "watching": Watching(shadowing=0.0), **changes}
    return RouterSettings(model=MODEL_NAME, large=large, lean=lean, **rules)


@asynccontextmanager
async def two_routers(folder: Path) -> AsyncIterator[tuple[Routers, aiohttp.ClientSession]]:
    """Two router processes on a folder with their settings, and somebody to ask them."""
    routers = Routers(folder)
    timeout, connector = aiohttp.ClientTimeout(total=120), aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            for port in routers.ports:
                await up(session, port)
            yield routers, session
    finally:
        await asyncio.to_thread(routers.end)


# ---------------------------------------------------------------------------- a router is killed


@dataclass
class Seen:
    """One stream as its client saw it.

    Attributes:
        url: whom it asked.
        prompt: what it asked.
        text: what came of the answer.
        done: whether it ended with [DONE].
        lost: how it broke off; empty when it did not.
        begun: set at its first event.
    """

    url: str
    prompt: str
    text: str = ""
    done: bool = False
    lost: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def whole(self) -> bool:
        """Whether all bytes came, and no other."""
        return self.done and not self.lost and self.text == text(self.prompt)

    async def listen(self, session: aiohttp.ClientSession) -> None:
        """Ask, and read to the end."""
        try:
            async with session.post(
                f"{self.url}/v1/completions", json=body(self.prompt, stream=True)
            ) as reply:
                assert reply.status == 200, await reply.text()
                async for line in reply.content:
                    data = line.removeprefix(b"data: ").strip()
                    self.done = self.done or data == b"[DONE]"
                    if data and not self.done:
                        event = json.loads(data)
                        if "error" in event:
                            self.lost = str(event["error"])
                        else:
                            self.text += event["choices"][0]["text"]
                        self.begun.set()
        except (aiohttp.ClientError, ConnectionError) as error:
            self.lost = type(error).__name__
        finally:
            self.begun.set()


async def streams_under_a_kill(
    session: aiohttp.ClientSession,
    engine: CountingEngine,
    urls: Sequence[str],
    kill: Callable[[list[Seen]], object],
    streams: int,
    beside: int = 0,
) -> list[Seen]:
    """Open so many streams, have ``kill`` kill a router in the middle of all of them, and let the engine go on.

    ``kill`` is given the streams; the engine goes on when it returns. The caller has cleared the engine's ``go_on``, and
    may have asked ``beside`` more.
    """
    seen = [Seen(urls[number % len(urls)], f"s{number} {TOKENS}") for number in range(streams)]
    tasks = [asyncio.create_task(one.listen(session)) for one in seen]
    await asyncio.gather(*(one.begun.wait() for one in seen))
    await engine.until(lambda: engine.running.total() == streams + beside, 240, "all are under way")
    await asyncio.to_thread(kill, seen)
    engine.go_on.set()
    await asyncio.gather(*tasks)
    return seen


# ---------------------------------------------------------------------------- policies change


class Mounted:
    """A settings file as the kubelet mounts a ConfigMap: each version in a folder, behind a link that is renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        (folder / "router.json").symlink_to("..data/router.json")

    def write(self, text: str) -> None:
        """Put a version in force."""
        version = self.folder / f"..v{next(self._numbers)}"
        version.mkdir()
        (version / "router.json").write_text(text)
        (self.folder / "..fresh").symlink_to(version.name)
        os.replace(self.folder / "..fresh", self.folder / "..data")


@dataclass
class Rule:
    """A policy, and what becomes of every request under it."""

    policy: RoutingPolicy
    route: str
    model: str

    @property
    def name(self) -> str:
        """As the header x-leanmodel-policy has it."""
        return str(self.policy.digest)[7:19]


def rules(count: int) -> list[Rule]:
    """So many policies, each another one: accept, escalate, large by the prompt, lean without a question."""
    found = []
    for number in range(count):
        step = number * 1e-5
        kinds = (
            Rule(made("cascade", scope=SCOPE, threshold=0.4 + step, scores=None), "lean", "lean"),
            Rule(made("cascade", scope=SCOPE, threshold=0.9 + step, scores=None), "escalated", "large"),
            Rule(made("predictive", ask_at=0.9999 - step / 10, scores=None), "large", "large"),
            Rule(made("all-lean", threshold=0.4 + step, scores=None), "lean", "lean"),
        )
        found.append(kinds[number % len(kinds)])
    return found


@dataclass
class Swapped:
    """What became of the requests while policies changed.

    Attributes:
        answers: by the policy that they named.
        late: answers that ended after the next policy had been written.
        wrong: what must not be, in words.
    """

    answers: Counter[str] = field(default_factory=Counter)
    late: int = 0
    wrong: list[str] = field(default_factory=list)


async def policies_under_load(folder: Path, changes: int, clients: int = 8, each: int = 8) -> Swapped:
    """Change the policy so often before two routers that are asked all the while; ``each`` answers at least a policy."""
    found, over, mounted = Swapped(), asyncio.Event(), Mounted(folder)
    every = rules(changes + 1)
    known, wanted = {rule.name: rule for rule in every}, every[0]
    assert len(known) == changes + 1
    async with counting_engine(pace=0.002) as engine:
        engine.go_on.set()

        def version(number: int) -> str:
            watching = Watching(shadowing=0.1)
            rule = every[number]
            return settings(engine.url, generation=number, policy=rule.policy, watching=watching).to_json()

        mounted.write(version(0))
        async with two_routers(folder) as (routers, session):

            async def client(first: int) -> None:
                for turn in itertools.count(first):
                    if over.is_set():
                        return
                    prompt, stream = f"c{turn} {TOKENS}", turn % 4 < 2
                    url = f"http://127.0.0.1:{routers.ports[turn % 2]}/v1/completions"
                    async with session.post(url, json=body(prompt, stream)) as reply:
                        raw, headers = await reply.text(), reply.headers
                    name = headers.get("x-leanmodel-policy", "")
                    if reply.status != 200 or name not in known:
                        found.wrong.append(f"{reply.status} under policy {name!r}: {raw[:300]}")
                        continue
                    found.answers[name] += 1
                    found.late += name != wanted.name
                    found.wrong += wrong(known[name], headers["x-leanmodel-route"], raw, prompt, stream)

            async def in_force(number: int) -> None:
                for port in routers.ports:
                    while True:
                        async with session.get(f"http://127.0.0.1:{port}/healthz") as reply:
                            if (await reply.json())["generation"] == number:
                                break
                        await asyncio.sleep(0.02)

            asking = [asyncio.create_task(client(number)) for number in range(clients)]
            for number, rule in enumerate(every):
                if number:
                    wanted = rule
                    mounted.write(version(number))
                await in_force(number)
                while found.answers[rule.name] < each and not any(task.done() for task in asking):
                    await asyncio.sleep(0.01)
            over.set()
            await asyncio.gather(*asking)
            await engine.idle()
    return found


def wrong(rule: Rule, route: str, raw: str, prompt: str, stream: bool) -> list[str]:
    """Return what is not as its policy decides, or not whole; nothing when all is well."""
    if stream:
        *events, last = raw.strip().split("\n\n")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events]
        whole = last == "data: [DONE]"
    else:
        chunks, whole = [json.loads(raw)], True
    models = {chunk.get("model") for chunk in chunks}
    said = "".join(choice["text"] for chunk in chunks for choice in chunk.get("choices", ()))
    if (route, models, said, whole) == (rule.route, {rule.model}, text(prompt), True):
        return []
    return [
        f"{prompt} under {rule.name} ({rule.route}, {rule.model}): {route}, {models}, whole {whole}: {said!r}"
    ]
