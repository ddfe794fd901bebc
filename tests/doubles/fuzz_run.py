"""Many hostile bodies to one router process: what was answered, how long it took, and what became of its memory."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from fuzz_bodies import case
from policies_made import made
from router_running import Running, running

from leanmodel_api.budget import Budget
from leanmodel_api.policy import Scope

PATIENCE_S = 60.0
CLIENTS = 4
BUDGET = Budget(usd_per_hour="1000")


@dataclass
class Fuzzed:
    """What a run found.

    Attributes:
        kinds: bodies by how they were made.
        statuses: answers by status.
        longest: seconds of the longest answer.
        memory: bytes of the router in RAM, by how many bodies had been answered.
        wrong: what must not be, in words.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    longest: float = 0.0
    seconds: float = 0.0
    memory: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def fuzz(folder: Path, bodies: int, seed: int, look_every: int) -> Fuzzed:
    """Send so many bodies; a cascade with keys and overrides answers."""
    policy = made("cascade", scope=Scope(), threshold=0.4).model_dump(mode="json")
    with running(folder, strategy="Cascade", policy=policy, overrides=True, budget=BUDGET) as router:
        found = asyncio.run(_sent(router, bodies, seed, look_every))
        if "Traceback" in router.log.read_text():
            found.wrong.append(f"the router's log: {router.log.read_text()[-2000:]}")
        if router.process.poll() is not None:
            found.wrong.append("the router has ended")
    return found


async def _sent(router: Running, bodies: int, seed: int, look_every: int) -> Fuzzed:
    found, numbers, answered = Fuzzed(), iter(range(bodies)), itertools.count(1)
    found.memory[0] = router.resident()

    async def client(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            kind, path, raw, headers = case(seed, number)
            begun = time.perf_counter()
            try:
                async with session.post(router.url + path, data=raw, headers=headers) as reply:
                    text = await reply.read()
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                found.wrong.append(f"body {number} ({kind}): {error!r}")
            else:
                found.longest = max(found.longest, time.perf_counter() - begun)
                found.statuses[reply.status] += 1
                why = fault(reply.status, reply.content_type, text)
                if why:
                    found.wrong.append(f"body {number} ({kind}): {why}")
            found.kinds[kind] += 1
            count = next(answered)
            if count % look_every == 0 or count == bodies:
                found.memory[count] = router.resident()

    headers = {"authorization": f"Bearer {router.key}", "content-type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    begun = time.perf_counter()
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        await asyncio.gather(*(client(session) for _ in range(CLIENTS)))
    found.seconds = time.perf_counter() - begun
    return found


def fault(status: int, content_type: str, text: bytes) -> str:
    """Return what is wrong with an answer; empty when nothing is. The engine is sound, so no 5xx is its doing."""
    if status >= 500:
        return f"{status} {text[:200]!r}"
    if content_type == "text/event-stream":
        return "" if text.endswith(b"data: [DONE]\n\n") else f"a stream that ends with {text[-100:]!r}"
    try:
        content = json.loads(text)
        message = content["error"]["message"] if status != 200 else ""
    except (ValueError, TypeError, LookupError) as error:
        return f"{status} {error!r} {text[:200]!r}"
    return "" if isinstance(message, str) else f"{status} without words: {text[:200]!r}"
