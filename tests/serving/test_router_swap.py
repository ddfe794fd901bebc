"""Settings are swapped under load without a lost request; a file that cannot be used changes nothing."""

from __future__ import annotations

import asyncio

import httpx
from serving_support import LARGE, LEAN, NAME, Stack, policy, replace, until


def test_swaps_under_load_lose_no_request(pair: Stack) -> None:
    """Weights move between the models while eight clients ask; every answer is right and from one of the two."""

    async def ask(client: httpx.AsyncClient, over: asyncio.Event, seen: list[tuple[int, str]]) -> None:
        number = 0
        while not over.is_set():
            number += 1
            body = {
                "model": NAME,
                "prompt": "Hello",
                "max_tokens": 2,
                "temperature": 0,
                "stream": number % 2 == 0,
            }
            reply = await client.post("/v1/completions", json=body)
            seen.append((reply.status_code, reply.headers.get("x-leanmodel-route", "")))
            if body["stream"]:
                assert reply.text.endswith("data: [DONE]\n\n")

    async def run() -> list[tuple[int, str]]:
        over, seen = asyncio.Event(), []
        async with httpx.AsyncClient(base_url=pair.url, timeout=120.0) as client:
            tasks = [asyncio.create_task(ask(client, over, seen)) for _ in range(8)]
            for strategy in ("AllLean", "AllLarge", "Cascade", "AllLean", "Cascade", "AllLarge"):
                rule = policy(1e-9) if strategy == "Cascade" else None
                wanted = pair.write(lean=pair.backend(LEAN), strategy=strategy, policy=rule)
                before = len(seen)
                while (await client.get("/healthz")).json()["generation"] != wanted or len(seen) < before + 6:
                    await asyncio.sleep(0.05)
            over.set()
            await asyncio.gather(*tasks)
        return seen

    seen = asyncio.run(asyncio.wait_for(run(), 300))
    assert {status for status, _ in seen} == {200}
    assert {route for _, route in seen} == {"lean", "large"}


def test_broken_settings_change_nothing_and_are_said(pair: Stack) -> None:
    before = pair.client.get("/healthz").json()["generation"]
    replace(pair.settings_file, '{"model": "support"}')
    health = until(
        lambda: (found := pair.client.get("/healthz").json())["settingsError"] and found,
        10.0,
        "the error is said",
    )
    assert "large" in health["settingsError"]
    assert health["generation"] == before
    assert pair.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).json()["model"] == LARGE
    pair.configure()
    assert pair.client.get("/healthz").json()["settingsError"] is None
