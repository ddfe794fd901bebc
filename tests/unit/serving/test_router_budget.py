"""Money in the router: reserved before, settled after, refused or left to the lean model when it is gone."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from policies_made import made
from router_double import ASK, Setup, cut, fine, html, refuse, router, run

from leanmodel_api.budget import Budget
from leanmodel_api.router import Watching
from leanmodel_api.serving import Price
from leanmodel_serving.ledger.books import MODEL, Line
from leanmodel_serving.ledger.clerk import Clerk
from leanmodel_serving.ledger.file import LedgerFile, spent_ever
from leanmodel_serving.router.ask import Ask
from leanmodel_serving.router.bound import most_tokens

PRICE = Price(input_usd_per_million_tokens="1000", output_usd_per_million_tokens="1000")
"""A tenth of a cent a token, so that an answer of the double (1 and 2 tokens) costs 3 of them."""
EACH = 3_000_000
NOON = 1_800_000_000 // 86400 * 86400 + 43200
BOUNDED = {**ASK, "max_tokens": 2}
STREAMED = {**BOUNDED, "stream": True, "stream_options": {"include_usage": True}}


class Clock:
    def __init__(self) -> None:
        self.now = NOON + 60.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def budgeted(
    tmp_path: Path, budget: dict[str, str], large: Any = fine, lean: Any = None, **more: Any
) -> AsyncIterator[tuple[Setup, Clock]]:
    clock = Clock()
    clerk = Clerk(LedgerFile(tmp_path / "ledger.db"), clock)
    rules = {"budget": Budget.model_validate(budget), **more.pop("rules", {})}
    async with router(tmp_path, large, lean, rules=rules, price=PRICE, clerk=clerk, **more) as setup:
        yield setup, clock
    clerk.close()


def spent(tmp_path: Path, account: str = MODEL) -> Line:
    return spent_ever(tmp_path / "ledger.db").get(account, Line())


def told(reply: httpx.Response) -> int:
    """The cost that an answer names, in nano-dollars."""
    header = reply.headers.get("x-leanmodel-cost-usd")
    if header is None:
        header = json.loads(reply.text.split("\n\n")[-3].removeprefix("data: "))["usage"]["cost_usd"]
    return round(float(header) * 1e9)


@pytest.mark.parametrize("body", [BOUNDED, STREAMED], ids=["whole", "stream"])
def test_what_is_spent_is_what_the_answers_cost_and_is_written_before_they_end(
    tmp_path: Path, body: dict[str, Any]
) -> None:
    async def scenario() -> None:
        async with budgeted(tmp_path, {"usdPerHour": "10", "usdPerDay": "20"}) as (setup, _):
            total = 0
            for _ in range(5):
                reply = await setup.client.post("/v1/completions", json=body)
                total += told(reply)
                assert spent(tmp_path).spent == total == EACH * spent(tmp_path).requests
            assert reply.headers["x-leanmodel-budget-window"].startswith("hour; ends-in=3540")
            left = 10_000_000_000 - total
            if body is BOUNDED:
                assert reply.headers["x-leanmodel-budget-left-usd"] == f"{left / 1e9:.6f}"
            else:  # a stream's headers go out while its own money is still held
                assert float(reply.headers["x-leanmodel-budget-left-usd"]) < left / 1e9

    run(scenario)
    assert spent(tmp_path).reserved == 0


def test_over_budget_it_refuses_until_the_window_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with budgeted(tmp_path, {"usdPerHour": "0.2"}) as (setup, clock):
            statuses = []
            for _ in range(80):
                reply = await setup.client.post("/v1/completions", json=BOUNDED)
                statuses.append(reply.status_code)
            answered = statuses.count(200)
            assert statuses == [200] * answered + [429] * (80 - answered) and 40 < answered < 80
            error = reply.json()["error"]
            assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
            assert reply.headers["retry-after"] == "3540" and "budget of this hour" in error["message"]
            assert len(setup.seen) == answered  # no engine was asked
            assert [labels for _, labels in setup.meters["leanmodel_refused"].calls] == [
                {"reason": "insufficient_quota"}
            ] * (80 - answered)
            clock.now += 3540
            assert (await setup.client.post("/v1/completions", json=BOUNDED)).status_code == 200

    run(scenario)
    assert spent(tmp_path).spent == spent(tmp_path).requests * EACH


def test_requests_under_way_are_counted_at_their_most(tmp_path: Path) -> None:
    """Fifty at once may not spend what one may."""
    let_go = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return await fine(request)

    async def scenario() -> None:
        async with budgeted(tmp_path, {"usdPerHour": "1"}, slow) as (setup, _):
            tasks = [
                asyncio.ensure_future(setup.client.post("/v1/completions", json=BOUNDED)) for _ in range(50)
            ]
            done, waiting = set(), set(tasks)
            while len(done) + len(setup.seen) < 50:
                more, waiting = await asyncio.wait(waiting, timeout=0.05)
                done |= more
            assert {one.result().status_code for one in done} == {429}
            assert {one.result().headers["retry-after"] for one in done} == {"1"}
            let_go.set()
            answers = [(await one).status_code for one in waiting]
            assert set(answers) == {200} and len(answers) + len(done) == 50

    run(scenario)


def test_a_request_that_the_whole_budget_could_not_pay_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with budgeted(tmp_path, {"usdPerHour": "0.3"}) as (setup, _):
            reply = await setup.client.post("/v1/completions", json={**ASK, "max_tokens": 5000})
            assert reply.status_code == 400 and "lower max_tokens" in reply.json()["error"]["message"]
            assert reply.json()["error"]["code"] == "budget_too_small"

    run(scenario)


# ---------------------------------------------------------------- lean only


def lenient(policy: str, **settings: Any) -> dict[str, Any]:
    return {"strategy": "Cascade", "policy": made(policy, threshold=1.0), **settings}


def test_over_budget_the_lean_model_answers_alone_and_the_promise_is_suspended(tmp_path: Path) -> None:
    async def scenario() -> None:
        budget = {"usdPerHour": "0.5", "whenExceeded": "LeanOnly"}
        async with budgeted(tmp_path, budget, lean=fine, rules=lenient("cascade")) as (setup, _):
            replies = [await setup.client.post("/v1/completions", json=BOUNDED) for _ in range(80)]
            ways = [reply.headers["x-leanmodel-route"] for reply in replies]
            first = ways.index("lean")
            assert ways == ["escalated"] * first + ["lean"] * (80 - first) and 20 < first < 80
            last = replies[-1].headers
            assert last["x-leanmodel-reason"] == "budget" and last["x-leanmodel-promise"] == "suspended"
            assert last["x-leanmodel-certificate"] == "none"
            assert "x-leanmodel-promise" not in replies[0].headers
            assert sum(map(told, replies)) == spent(tmp_path).spent
            reasons = [labels["reason"] for _, labels in setup.meters["leanmodel_decisions"].calls]
            assert reasons.count("budget") == 80 - first
            # What it did not judge tells the monitors nothing, and pins no conversation.
            assert not setup.app.shared.watcher.pins.take_fresh() or first

    run(scenario)


def test_a_lean_model_that_is_certified_alone_keeps_its_promise(tmp_path: Path) -> None:
    async def scenario() -> None:
        budget = {"usdPerHour": "0.0001", "whenExceeded": "LeanOnly"}
        async with budgeted(tmp_path, budget, lean=fine, rules=lenient("all-lean")) as (setup, _):
            reply = await setup.client.post("/v1/completions", json=BOUNDED)
            assert reply.headers["x-leanmodel-reason"] == "budget"
            assert "x-leanmodel-promise" not in reply.headers
            assert reply.headers["x-leanmodel-certificate"] != "none"

    run(scenario)


def test_what_the_lean_model_may_not_be_able_to_do_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        budget = {"usdPerHour": "0.0001", "whenExceeded": "LeanOnly"}
        rules = lenient("cascade", overrides=True)
        async with budgeted(tmp_path, budget, lean=fine, rules=rules) as (setup, _):
            chat = {"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
            tools = {**chat, "tools": [{"type": "function", "function": {"name": "f"}}]}
            wants = [({**chat}, {"x-leanmodel-route": "large"}), (tools, {})]
            wants.append((chat, {"x-leanmodel-min-confidence": "0.9"}))
            for body, headers in wants:
                reply = await setup.client.post("/v1/chat/completions", json=body, headers=headers)
                assert reply.status_code == 400 and reply.json()["error"]["code"] == "budget_too_small"
            ok = await setup.client.post(
                "/v1/completions", json=BOUNDED, headers={"x-leanmodel-route": "lean"}
            )
            assert ok.status_code == 200 and ok.headers["x-leanmodel-route"] == "lean"
            assert setup.seen == [("lean", setup.seen[0][1])]

    run(scenario)


@pytest.mark.parametrize("body", [BOUNDED, STREAMED], ids=["whole", "stream"])
def test_alone_a_failing_lean_model_is_an_error_and_the_large_one_stays_unasked(
    tmp_path: Path, body: dict[str, Any]
) -> None:
    async def scenario() -> None:
        budget = {"usdPerHour": "0.0001", "whenExceeded": "LeanOnly"}
        async with budgeted(tmp_path, budget, lean=html, rules=lenient("cascade")) as (setup, _):
            reply = await setup.client.post("/v1/completions", json=body)
            assert reply.status_code == 503 and "no money" in reply.json()["error"]["message"]
            assert [name for name, _ in setup.seen] == ["lean"]

    run(scenario)


def test_alone_the_lean_models_own_refusal_is_passed_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        budget = {"usdPerHour": "0.0001", "whenExceeded": "LeanOnly"}
        async with budgeted(tmp_path, budget, lean=refuse, rules=lenient("cascade")) as (setup, _):
            for body in (BOUNDED, STREAMED):
                reply = await setup.client.post("/v1/completions", json=body)
                assert reply.status_code == 400 and reply.json()["error"]["message"] == "too long"

    run(scenario)


# ---------------------------------------------------------------- what is not answered


@pytest.mark.parametrize("engine", [html, refuse], ids=["broken", "refused"])
def test_what_fails_gives_its_money_back(tmp_path: Path, engine: Any) -> None:
    async def scenario() -> None:
        async with budgeted(tmp_path, {"usdPerHour": "0.3"}, engine) as (setup, _):
            for _ in range(100):
                reply = await setup.client.post("/v1/completions", json=BOUNDED)
                assert reply.status_code in (400, 503)

    run(scenario)
    assert spent(tmp_path) == Line()


def test_a_lean_attempt_is_paid_though_the_large_model_failed(tmp_path: Path) -> None:
    async def scenario() -> None:
        rules = lenient("cascade", overrides=True)
        async with budgeted(tmp_path, {"usdPerHour": "10"}, refuse, fine, rules=rules) as (setup, _):
            assert (await setup.client.post("/v1/completions", json=BOUNDED)).status_code == 400

    run(scenario)
    assert spent(tmp_path) == Line(spent=EACH, requests=1)


def test_a_client_that_leaves_a_stream_pays_for_what_it_was_sent(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(10):
            await response.write(b'data: {"choices": [{"index": 0, "text": "x"}]}\n\n')
        await left.wait()
        return response

    async def scenario() -> None:
        async with budgeted(tmp_path, {"usdPerHour": "10"}, endless) as (setup, _):
            body = json.dumps(STREAMED).encode()
            sent = 0

            async def send(message: Any) -> None:
                nonlocal sent
                sent += message["type"] == "http.response.body"
                if sent == 10:
                    raise asyncio.CancelledError  # Serve cancels the request when its client hangs up

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": body}

            scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
            with pytest.raises(asyncio.CancelledError):
                await setup.app(scope, receive, send)
            left.set()

    run(scenario)
    found = spent(tmp_path)
    prompt = len(json.dumps(STREAMED).encode()) // 4
    assert found == Line(spent=(prompt + 10) * 1_000_000, requests=1)


def test_a_stream_that_the_engine_breaks_off_costs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with budgeted(tmp_path, {"usdPerHour": "10"}, cut) as (setup, _):
            await setup.client.post("/v1/completions", json=STREAMED)

    run(scenario)
    assert spent(tmp_path).spent == 0 and spent(tmp_path).reserved == 0


def test_without_a_budget_nothing_is_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        clerk = Clerk(LedgerFile(tmp_path / "ledger.db"))
        async with router(tmp_path, fine, price=PRICE, clerk=clerk) as setup:
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert reply.status_code == 200 and "x-leanmodel-budget-left-usd" not in reply.headers
        clerk.close()

    run(scenario)
    assert spent_ever(tmp_path / "ledger.db") == {}


def test_without_a_ledger_a_budget_lets_nothing_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    async def scenario() -> None:
        async with budgeted(tmp_path, {"usdPerHour": "10"}) as (setup, _):
            with monkeypatch.context() as patch:
                patch.setattr(LedgerFile, "apply", broken)
                reply = await setup.client.post("/v1/completions", json=BOUNDED)
                assert reply.status_code == 503 and reply.json()["error"]["code"] == "ledger_unavailable"
            assert (await setup.client.post("/v1/completions", json=BOUNDED)).status_code == 200

    run(scenario)


def test_shadows_are_paid_and_are_left_out_when_there_is_no_money(tmp_path: Path) -> None:
    async def scenario() -> None:
        rules = {**lenient("all-lean"), "watching": Watching(shadowing=1.0)}
        async with budgeted(tmp_path, {"usdPerHour": "10"}, fine, fine, rules=rules) as (setup, _):
            assert (await setup.client.post("/v1/completions", json=BOUNDED)).status_code == 200
            await setup.app.shared.watcher.settled()
            assert spent(tmp_path) == Line(spent=2 * EACH, requests=2)

    run(scenario)


def test_a_client_that_leaves_while_its_money_is_reserved_leaves_none_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, free, apply = threading.Event(), threading.Event(), LedgerFile.apply

    def slow(self: LedgerFile, batch: Any, owner: str, now: float) -> Any:
        asked.set()
        free.wait(10)
        return apply(self, batch, owner, now)

    async def scenario() -> None:
        async with budgeted(tmp_path, {"usdPerHour": "10"}) as (setup, _):
            monkeypatch.setattr(LedgerFile, "apply", slow)
            task = asyncio.ensure_future(setup.client.post("/v1/completions", json=BOUNDED))
            await asyncio.to_thread(asked.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            free.set()
            assert setup.seen == []

    run(scenario)
    assert spent(tmp_path) == Line()


def test_the_gauges_show_what_is_left_and_go_with_the_budget(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with budgeted(tmp_path, {"usdPerHour": "10"}) as (setup, clock):
            till, meters = setup.app.shared.till, setup.app.shared.meters

            def shown(name: str) -> list[float]:
                setup.meters[name].calls.clear()
                meters.refresh()
                return [value for value, _ in setup.meters[name].calls]

            await setup.client.post("/v1/completions", json=BOUNDED)
            await till.show(setup.app.state)
            assert shown("leanmodel_budget_usd") == [10.0] and shown("leanmodel_ledger_kept") == [1.0]
            assert shown("leanmodel_budget_left_usd") == [10.0 - EACH / 1e9]
            clock.now += 3600  # another hour, in which nothing was spent
            await till.show(setup.app.state)
            assert shown("leanmodel_budget_left_usd") == [10.0]
            free = setup.app.state.settings.model_copy(update={"budget": None})
            await till.show(replace(setup.app.state, settings=free))
            assert shown("leanmodel_budget_usd") == [] == shown("leanmodel_ledger_kept")

    run(scenario)


# ---------------------------------------------------------------- the bound


@settings(deadline=None)
@given(
    st.text(max_size=200),
    st.one_of(st.none(), st.integers(1, 5000)),
    st.integers(1, 4),
    st.integers(64, 4096),
)
def test_no_answer_can_use_more_than_is_held(text: str, limit: int | None, n: int, length: int) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "n": n}
    if limit is not None:
        body["max_tokens"] = limit
    size = len(json.dumps(body).encode())
    found = most_tokens(Ask("chat", body, False, False), size, {}, length)
    # A tokenizer that makes a token of every byte, and a model that goes on until it must stop.
    prompt = min(len(text.encode()) + 64, length)
    assert found.prompt >= prompt
    assert found.completion >= n * min(limit or length, length - min(prompt, length - 1))


def test_several_prompts_and_raw_completions_have_their_bound() -> None:
    several = Ask("completions", {"prompt": ["a", "b", "c"], "max_tokens": 5}, False, False)
    assert most_tokens(several, 60, {}, 100).completion == 15
    assert most_tokens(Ask("completions", {"prompt": "a"}, False, False), 20, {}, 100).completion == 16
    assert most_tokens(Ask("classify", {"input": ["a", "b"]}, False, False), 20, {}, 100).completion == 0
