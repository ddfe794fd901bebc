"""Who is let in, who is not, and how much each may ask."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from router_double import ASK, Setup, fine, router, run

from leanmodel_api.budget import Budget
from leanmodel_api.keys import SUFFIX, KeyEntry, KeyLimits, issue, split
from leanmodel_api.serving import Price
from leanmodel_serving.ledger.clerk import Clerk
from leanmodel_serving.ledger.file import LedgerFile, spent_ever
from leanmodel_serving.router.errors import ApiError
from leanmodel_serving.router.keyring import LOOK_ALL_S, Keyring

NOW = 1_800_000_000.0
PRICE = Price(input_usd_per_million_tokens="1000", output_usd_per_million_tokens="1000")
BOUNDED = {**ASK, "max_tokens": 2}


def given(
    folder: Path, tenant: str = "team-a", expires: str | None = None, **limits: Any
) -> tuple[str, KeyEntry]:
    """Make a key and put its entry into the folder."""
    key, entry = issue(tenant, KeyLimits(**limits), "2026-11-22T00:00:00+00:00", expires)
    folder.mkdir(exist_ok=True)
    fresh = folder / f".{entry.id}"
    fresh.write_text(entry.to_json())
    fresh.replace(folder / f"{entry.id}{SUFFIX}")
    return key, entry


@asynccontextmanager
async def keyed(tmp_path: Path, large: Any = fine, **more: Any) -> AsyncIterator[Setup]:
    clerk = Clerk(LedgerFile(tmp_path / "ledger.db"), lambda: NOW)
    rules = {"access": "Keys", **more.pop("rules", {})}
    keys = tmp_path / "keys"
    async with router(tmp_path, large, rules=rules, price=PRICE, clerk=clerk, keys=keys, **more) as setup:
        yield setup
    clerk.close()


def bearing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


# ---------------------------------------------------------------- the door


def test_only_a_valid_key_opens_and_the_refusal_says_nothing_more(tmp_path: Path) -> None:
    key, entry = given(tmp_path / "keys")
    other, _ = issue("team-b", KeyLimits(), "2026-11-22T00:00:00+00:00")
    expired, _ = given(tmp_path / "keys", "late", "2020-01-01T00:00:00+00:00")
    wrong = [
        {}, bearing(""), bearing("none"), bearing(key[:-1]), bearing(key + "x"), bearing(other), bearing(expired),
        bearing(f"lm-{entry.id}-{other[14:]}"), bearing(entry.hash), {"authorization": f"Basic {key}"},
        bearing("lm-0000000000-" + "A" * 43),
    ]  # fmt: skip

    async def scenario() -> None:
        async with keyed(tmp_path) as setup:
            said = set()
            for headers in wrong:
                for ask in (
                    setup.client.post("/v1/completions", json=ASK, headers=headers),
                    setup.client.post("/v1/chat/completions", json={}, headers=headers),
                    setup.client.get("/v1/models", headers=headers),
                ):
                    reply = await ask
                    error = reply.json()["error"]
                    assert (reply.status_code, error["type"], error["code"]) == (
                        401, "invalid_request_error", "invalid_api_key",
                    )  # fmt: skip
                    assert reply.headers["www-authenticate"] == "Bearer"
                    said.add(error["message"])
            assert len(said) == 2  # none was given, or it is not valid: nothing tells which part is wrong
            assert setup.seen == []
            assert (
                await setup.client.post("/v1/completions", json=ASK, headers=bearing(key))
            ).status_code == 200
            assert (await setup.client.get("/v1/models", headers=bearing(key))).status_code == 200
            assert (await setup.client.get("/healthz")).status_code == 503  # warming up, and open

    run(scenario)


def test_without_keys_declared_all_is_open_as_before(tmp_path: Path) -> None:
    given(tmp_path / "keys")

    async def scenario() -> None:
        async with router(tmp_path, fine, keys=tmp_path / "keys") as setup:
            for headers in ({}, bearing("none"), bearing("sk-anything")):
                reply = await setup.client.post("/v1/completions", json=ASK, headers=headers)
                assert reply.status_code == 200

    run(scenario)


def test_keys_declared_and_none_there_lets_nobody_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with keyed(tmp_path) as setup:
            for headers in ({}, bearing("none")):
                reply = await setup.client.post("/v1/completions", json=ASK, headers=headers)
                assert reply.status_code == 401

    run(scenario)


def test_the_key_goes_no_further_and_into_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, entry = given(tmp_path / "keys")

    async def scenario() -> None:
        async with keyed(tmp_path) as setup:
            with caplog.at_level("DEBUG"):
                for headers in (bearing(key), bearing(key[:-1])):
                    await setup.client.post("/v1/completions", json=ASK, headers=headers)
            assert key not in json.dumps(setup.seen) and key[14:] not in caplog.text
            assert entry.hash not in caplog.text and "tenant=team-a" in caplog.text
            shown = (await setup.client.get("/healthz")).text + setup.app.file.path.read_text()
            assert entry.id not in shown and entry.hash not in shown

    run(scenario)


# ---------------------------------------------------------------- the folder


def test_keys_come_and_go_while_the_router_runs(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    ring = Keyring(folder, lambda: NOW)
    assert len(ring) == 0
    key, entry = given(folder)
    ring.look()
    assert ring.opened(key.encode()).tenant == "team-a"
    (folder / f"{entry.id}{SUFFIX}").unlink()
    ring.look()
    with pytest.raises(ApiError):
        ring.opened(key.encode())


def test_a_secrets_folder_is_swapped_as_the_kubelet_does_it(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    mounted, keys = folder, []
    for number in (1, 2):
        version = folder / f"..v{number}"
        key, entry = given(version)
        keys.append(key)
        (folder / "..fresh").symlink_to(version.name)
        os.replace(folder / "..fresh", folder / "..data")
        for old in folder.glob(f"*{SUFFIX}"):
            old.unlink()
        (folder / f"{entry.id}{SUFFIX}").symlink_to(f"..data/{entry.id}{SUFFIX}")
    ring = Keyring(mounted, lambda: NOW)
    assert ring.opened(keys[1].encode()).tenant == "team-a"
    with pytest.raises(ApiError):
        ring.opened(keys[0].encode())


def test_an_entry_that_is_changed_in_place_is_seen_within_seconds(tmp_path: Path) -> None:
    folder, now = tmp_path / "keys", [NOW]
    key, entry = given(folder)
    ring = Keyring(folder, lambda: now[0])
    path = folder / f"{entry.id}{SUFFIX}"
    path.write_text(entry.model_copy(update={"tenant": "renamed"}).to_json())
    now[0] += LOOK_ALL_S
    ring.look()
    assert ring.opened(key.encode()).tenant == "renamed"


@pytest.mark.parametrize("text", ["", "{}", "null", "[1]", '{"hash": "sha256:x"}', "\x00\xff", "x" * 100_000])
def test_what_is_no_entry_opens_nothing_and_leaves_the_others(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "keys"
    key, _ = given(folder)
    (folder / f"0123456789{SUFFIX}").write_text(text)
    ring = Keyring(folder, lambda: NOW)
    assert len(ring) == 1 and ring.opened(key.encode())
    assert "0123456789" in caplog.text and (not text.strip() or text[:20] not in caplog.text or len(text) < 5)


def test_an_entry_under_another_name_opens_nothing(tmp_path: Path) -> None:
    key, entry = given(tmp_path / "keys")
    (tmp_path / "keys" / f"{entry.id}{SUFFIX}").rename(tmp_path / "keys" / f"0123456789{SUFFIX}")
    with pytest.raises(ApiError):
        Keyring(tmp_path / "keys", lambda: NOW).opened(key.encode())


def test_an_entry_cannot_be_turned_into_its_key() -> None:
    key, entry = issue("a", KeyLimits(), "2026-11-22T00:00:00+00:00")
    found = split(key)
    assert found is not None and found[0] == entry.id and found[1] not in entry.to_json()
    assert entry.is_of(found[1]) and not entry.is_of(found[1][:-1] + "~")
    again, second = issue("a", KeyLimits(), "2026-11-22T00:00:00+00:00")
    assert again != key and second.salt != entry.salt and second.hash != entry.hash


# ---------------------------------------------------------------- what a key may


def test_a_key_that_asks_too_fast_waits_and_others_do_not(tmp_path: Path) -> None:
    fast, _ = given(tmp_path / "keys", requests_per_minute=3)
    free, _ = given(tmp_path / "keys", "team-b")

    async def scenario() -> None:
        async with keyed(tmp_path) as setup:
            replies = [
                await setup.client.post("/v1/completions", json=ASK, headers=bearing(fast)) for _ in range(4)
            ]
            assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
            error = replies[-1].json()["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert replies[-1].headers["retry-after"] == "20"
            reply = await setup.client.post("/v1/completions", json=ASK, headers=bearing(free))
            assert reply.status_code == 200

    run(scenario)


def test_two_replicas_share_a_keys_rate_and_budget(tmp_path: Path) -> None:
    key, entry = given(
        tmp_path / "keys", requests_per_minute=10, budget=Budget(usd_per_day="100"), concurrency=50
    )

    async def scenario() -> None:
        async with keyed(tmp_path) as one, keyed(tmp_path) as two:
            asked = [
                setup.client.post("/v1/completions", json=BOUNDED, headers=bearing(key))
                for setup in [one, two] * 10
            ]
            statuses = [reply.status_code for reply in await asyncio.gather(*asked)]
            assert sorted(statuses) == [200] * 10 + [429] * 10

    run(scenario)
    found = spent_ever(tmp_path / "ledger.db")
    assert found[entry.id] == found[""] and found[""].spent == 30_000_000


def test_a_keys_own_budget_ends_before_the_whole_and_nobody_sees_the_others_money(tmp_path: Path) -> None:
    poor, entry = given(tmp_path / "keys", budget=Budget(usd_per_hour="0.06"))
    rich, _ = given(tmp_path / "keys", "rich")

    async def scenario() -> None:
        async with keyed(tmp_path, rules={"budget": Budget(usd_per_day="50")}) as setup:
            statuses, last = [], {}
            for _ in range(8):
                reply = await setup.client.post("/v1/completions", json=BOUNDED, headers=bearing(poor))
                statuses.append(reply.status_code)
                last = reply.headers if reply.status_code == 200 else last
            assert statuses.count(429) and sorted(statuses) == statuses
            assert "this key's budget" in reply.json()["error"]["message"]
            assert float(last["x-leanmodel-budget-left-usd"]) < 0.06
            reply = await setup.client.post("/v1/completions", json=BOUNDED, headers=bearing(rich))
            assert reply.status_code == 200 and "x-leanmodel-budget-left-usd" not in reply.headers

    run(scenario)
    assert spent_ever(tmp_path / "ledger.db")[entry.id].spent < 60_000_000


def test_so_many_of_a_keys_requests_are_under_way_at_once(tmp_path: Path) -> None:
    key, _ = given(tmp_path / "keys", concurrency=2)
    let_go = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return await fine(request)

    async def scenario() -> None:
        async with keyed(tmp_path, slow) as setup:
            post = setup.client.post
            tasks = {
                asyncio.ensure_future(post("/v1/completions", json=ASK, headers=bearing(key)))
                for _ in range(5)
            }
            done: set[Any] = set()
            while len(done) < 3:
                more, tasks = await asyncio.wait(tasks, timeout=0.05)
                done |= more
            assert {one.result().status_code for one in done} == {429}
            let_go.set()
            assert [(await one).status_code for one in tasks] == [200, 200]
            reply = await post("/v1/completions", json=ASK, headers=bearing(key))
            assert reply.status_code == 200

    run(scenario)
