"""The second promise: in force under pressure and no longer, said by every answer, and watched apart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from policies_made import certificate, made
from router_double import ASK, Setup, answer, fine, html, router, run

from leanmodel_api.budget import Budget
from leanmodel_api.pressure import Strain
from leanmodel_api.router import Watching
from leanmodel_api.routing_policy import RoutingPolicy, SecondPoint
from leanmodel_api.serving import Price
from leanmodel_serving.ledger.clerk import Clerk
from leanmodel_serving.ledger.file import LedgerFile
from leanmodel_serving.router.pressure import AHEAD, CALM_S, Gone, Pressure, Seen
from leanmodel_serving.router.relief import Relief
from leanmodel_serving.router.state import StateFile

NOON = 1_800_000_000 // 86400 * 86400 + 43200
PRICE = Price(input_usd_per_million_tokens="1000", output_usd_per_million_tokens="1000")
BOUNDED = {**ASK, "max_tokens": 2}

# ---------------------------------------------------------------- the decision

ALL = Strain(budget="0.5", concurrency=10, queue=4)


def seen(money: float = 0.0, time: float = 0.0, active: int = 0, waiting: int = 0) -> Seen:
    return Seen(active, waiting, (Gone(money, time),))


@pytest.mark.parametrize(
    ("strain", "what", "causes"),
    [
        (ALL, seen(), ()),
        (ALL, seen(active=9, waiting=3), ()),
        (ALL, seen(active=10), ("concurrency",)),
        (ALL, seen(active=10, waiting=4), ("concurrency", "queue")),
        (ALL, seen(money=0.49, time=0.1), ()),  # fast, but little of it is gone
        (ALL, seen(money=0.6, time=0.6), ()),  # as fast as the clock
        (ALL, seen(money=0.6, time=0.6 - AHEAD / 2), ()),
        (ALL, seen(money=0.6, time=0.5), ("budget",)),
        (ALL, seen(money=1.0, time=0.99), ("budget",)),  # nothing is left
        (Strain(queue=4), seen(money=1.0, time=0.1, active=99), ()),
        (None, seen(money=1.0, active=99, waiting=99), ()),
        (
            ALL,
            Seen(budget=(Gone(0.1, 0.5), Gone(0.9, 0.5))),
            ("budget",),
        ),  # one of the hour and the day is enough
    ],
)
def test_pressure_begins_at_what_the_manifest_says(
    strain: Strain | None, what: Seen, causes: tuple[str, ...]
) -> None:
    assert Pressure().after(strain, what, 0.0).causes == causes


def test_it_ends_after_a_time_of_calm_and_not_in_between() -> None:
    found = Pressure().after(ALL, seen(active=10), 100.0)
    found = found.after(ALL, seen(active=6), 200.0)  # above half: still pressure
    found = found.after(ALL, seen(active=4), 200.0 + CALM_S - 1)
    assert found.causes == ("concurrency",)
    assert found.after(ALL, seen(active=4), 200.0 + CALM_S).causes == ()
    again = found.after(ALL, seen(active=5), 200.0 + CALM_S - 0.5)
    assert again.after(ALL, seen(active=0), 200.0 + CALM_S + 1).causes == ("concurrency",)
    assert found.after(Strain(queue=4), seen(active=4), 200.0 + CALM_S - 1).causes == ()


looks = st.lists(
    st.tuples(
        st.floats(0, 60), st.floats(0, 1), st.floats(0, 1), st.integers(0, 20), st.integers(0, 8),
    ),
    max_size=30,
)  # fmt: skip


@given(looks)
@settings(max_examples=300, deadline=None)
def test_no_promise_is_in_force_for_less_than_the_time_of_calm(
    found: list[tuple[float, float, float, int, int]],
) -> None:
    now, pressure, begun = 0.0, Pressure(), None
    for passed, money, time, active, waiting in found:
        now += passed
        what = seen(money, time, active, waiting)
        fresh = Pressure().after(ALL, what, now).causes
        pressure = pressure.after(ALL, what, now)
        # What is pressure by itself always is; what is not never begins.
        assert set(fresh) <= set(pressure.causes)
        if pressure.causes:
            assert begun is not None or fresh
            begun = now if begun is None else begun
        elif begun is not None:
            assert now - begun >= CALM_S
            begun = None


# ---------------------------------------------------------------- through the router


def second(**changes: Any) -> RoutingPolicy:
    """Confidences of the double's answers are 0.4: the first promise escalates them, the second keeps them."""
    lower = certificate(0.3).model_copy(update={"retain": 0.8, "n": 999})
    point = SecondPoint(kind="cascade", threshold=0.3, certificate=lower, expected_large_share=0.1)
    return made("cascade", threshold=0.9, under_pressure=point.model_copy(update=changes), scores=None)


async def unsure(request: web.Request) -> web.StreamResponse:
    """A lean engine whose one token has a log-probability of -0.4: a confidence of 0.4."""
    body = await request.json()
    found = answer(body["model"])
    found["choices"][0]["logprobs"] = {
        "tokens": ["a"],
        "token_logprobs": [-0.4],
        "top_logprobs": [{"a": -0.4}],
    }
    return web.json_response(found)


class Clock:
    def __init__(self) -> None:
        self.now = NOON + 60.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def pressed(
    tmp_path: Path, strain: Strain | None, large: Any = fine, policy: RoutingPolicy | None = None, **more: Any
) -> AsyncIterator[tuple[Setup, Clock]]:
    clock = Clock()
    clerk = Clerk(LedgerFile(tmp_path / "ledger.db"), clock)
    rules = {"strategy": "Cascade", "policy": policy or second(), "pressure": strain, **more.pop("rules", {})}
    async with router(tmp_path, large, unsure, rules=rules, price=PRICE, clerk=clerk, **more) as setup:
        app = setup.app
        app.shared.relief = Relief(app.gate, app.shared.till, app.shared.meters, clock)
        yield setup, clock
    clerk.close()


def promises(setup: Setup) -> list[str]:
    return [labels["promise"] for _, labels in setup.meters["leanmodel_promises"].calls]


def test_every_answer_says_which_promise_it_is_under(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ray.serve")

    async def scenario() -> None:
        held, inside = asyncio.Event(), asyncio.Event()

        async def slow(request: web.Request) -> web.StreamResponse:
            inside.set()
            await held.wait()
            return await fine(request)

        async with pressed(tmp_path, Strain(concurrency=1), slow) as (setup, clock):
            app = setup.app
            first = asyncio.create_task(setup.client.post("/v1/completions", json=ASK))
            await inside.wait()
            app.shared.relief.look(app.state)
            under = await setup.client.post("/v1/completions", json=ASK)
            held.set()
            full = await first  # it began before there was pressure, and keeps its promise
            assert (full.headers["x-leanmodel-route"], full.headers["x-leanmodel-promise"]) == (
                "escalated",
                "full",
            )
            assert full.headers["x-leanmodel-certificate"].startswith("retain=0.95;")
            assert "x-leanmodel-pressure" not in full.headers
            said = under.headers
            assert (said["x-leanmodel-route"], said["x-leanmodel-promise"]) == ("lean", "under-pressure")
            assert said["x-leanmodel-certificate"].startswith("retain=0.8;")
            assert said["x-leanmodel-pressure"] == "concurrency"
            assert said["x-leanmodel-policy"] == full.headers["x-leanmodel-policy"]
            health = (await setup.client.get("/healthz")).json()
            assert health["pressure"] == "concurrency" and health["certificateUnderPressure"].startswith(
                "retain=0.8;"
            )
            app.shared.relief.look(app.state)
            clock.now += CALM_S
            app.shared.relief.look(app.state)
            after = await setup.client.post("/v1/completions", json=ASK)
            assert (after.headers["x-leanmodel-route"], after.headers["x-leanmodel-promise"]) == (
                "escalated",
                "full",
            )
            assert sorted(promises(setup)) == ["full", "full", "under-pressure"]
            shown = [
                value
                for value, labels in setup.meters["leanmodel_pressure"].calls
                if labels["cause"] == "concurrency"
            ]
            assert shown == [1.0, 1.0, 0.0]

    run(scenario)
    lines = [line for line in caplog.messages if "promise=under-pressure" in line]
    assert len(lines) == 1 and "certificate=retain=0.8;" in lines[0] and "pressure=concurrency" in lines[0]
    assert sum("promise in force" in line for line in caplog.messages) == 2


def test_spending_ahead_of_the_clock_is_pressure_until_the_next_window(tmp_path: Path) -> None:
    async def scenario() -> None:
        rules = {"budget": Budget.model_validate({"usdPerHour": "1"})}
        async with pressed(tmp_path, Strain(budget="0.1"), rules=rules) as (setup, clock):
            app, seen_promises = setup.app, []
            for _ in range(34):
                reply = await setup.client.post("/v1/completions", json=BOUNDED)
                assert reply.status_code == 200
                seen_promises.append(reply.headers["x-leanmodel-promise"])
                clock.now += 6  # the till looks every five seconds
                await app.shared.till.show(app.state)
                app.shared.relief.look(app.state)
            begun = seen_promises.index("under-pressure")
            # Six thousandths a request of both models: a half of it is gone after 25.
            assert 16 <= begun <= 18 and set(seen_promises[begun:]) == {"under-pressure"}
            clock.now += 3600
            app.shared.relief.look(app.state)
            assert app.shared.relief.cause == ""  # what was seen of the last hour says nothing of this one
            assert (await setup.client.post("/v1/completions", json=BOUNDED)).headers[
                "x-leanmodel-promise"
            ] == "full"

    run(scenario)


def test_without_a_second_point_that_is_certified_the_first_stays_in_force(tmp_path: Path) -> None:
    async def scenario(policy: RoutingPolicy, strain: Strain | None) -> None:
        async with pressed(tmp_path, strain, policy=policy) as (setup, _):
            setup.app.gate.active += 5
            setup.app.shared.relief.look(setup.app.state)
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert reply.headers["x-leanmodel-route"] == "escalated"
            assert reply.headers["x-leanmodel-certificate"].startswith("retain=0.95;")
            assert not {"x-leanmodel-promise", "x-leanmodel-pressure"} & set(reply.headers)
            assert promises(setup) == ["full"] and setup.meters["leanmodel_pressure"].calls == []

    failed = certificate().model_copy(update={"certified": False, "retain": 0.8})
    run(lambda: scenario(second(certificate=failed), Strain(concurrency=1)))
    run(lambda: scenario(made("cascade", threshold=0.9), Strain(concurrency=1)))
    run(lambda: scenario(second(), None))


def test_a_lean_model_that_has_traffic_under_pressure_alone_stands_in_for_a_large_one_that_is_down(
    tmp_path: Path,
) -> None:
    """The first promise is not certified: without pressure the large model answers everything."""
    point = second().under_pressure
    plain = certificate().model_copy(update={"certified": False})

    async def scenario(policy: RoutingPolicy, status: int) -> None:
        async with pressed(tmp_path, Strain(concurrency=1), html, policy=policy) as (setup, _):
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert reply.status_code == status
            if status == 200:
                said = reply.headers
                assert (said["x-leanmodel-route"], said["x-leanmodel-promise"]) == ("lean", "suspended")

    run(lambda: scenario(made("all-large", certificate=plain, under_pressure=point, scores=None), 200))
    run(lambda: scenario(made("all-large", certificate=plain, scores=None), 503))


def test_without_a_first_promise_the_second_is_in_force_under_pressure_alone(tmp_path: Path) -> None:
    plain = certificate().model_copy(update={"certified": False})
    policy = made("all-large", certificate=plain, under_pressure=second().under_pressure, scores=None)

    async def scenario() -> None:
        async with pressed(tmp_path, Strain(concurrency=1), policy=policy) as (setup, _):
            before = await setup.client.post("/v1/completions", json=ASK)
            setup.app.gate.active += 1
            setup.app.shared.relief.look(setup.app.state)
            setup.app.gate.active -= 1
            after = await setup.client.post("/v1/completions", json=ASK)
            found = [
                (one.headers["x-leanmodel-route"], one.headers["x-leanmodel-promise"])
                for one in (before, after)
            ]
            assert found == [("large", "none"), ("lean", "under-pressure")]

    run(scenario)


def test_over_budget_the_lean_model_keeps_the_second_promise_where_it_is_for_it_alone(tmp_path: Path) -> None:
    async def scenario(strain: Strain, promise: str) -> None:
        rules = {"budget": Budget.model_validate({"usdPerHour": "0.05", "whenExceeded": "LeanOnly"})}
        async with pressed(tmp_path, strain, policy=second(kind="all-lean", threshold=0.0), rules=rules) as (
            setup,
            _,
        ):
            replies = [await setup.client.post("/v1/completions", json=BOUNDED) for _ in range(12)]
            last = replies[-1].headers
            assert (last["x-leanmodel-reason"], last["x-leanmodel-promise"]) == ("budget", promise)
            assert (last["x-leanmodel-certificate"] == "none") is (promise == "suspended")
            assert last.get("x-leanmodel-pressure") == ("budget" if promise != "suspended" else None)

    run(lambda: scenario(Strain(budget="0.9"), "under-pressure"))
    (tmp_path / "ledger.db").unlink()
    run(lambda: scenario(Strain(queue=1), "suspended"))


def test_each_promise_is_watched_by_its_own_requests_and_an_alarm_of_either_ends_both(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = StateFile(tmp_path / "state.db")
        watching = Watching(shadowing=1.0, false_alarms=0.05, period_seconds=1e-9)
        policy = second()
        relaxed = policy.relaxed()
        assert relaxed is not None
        async with pressed(tmp_path, Strain(concurrency=1), rules={"watching": watching}, kept=kept) as (
            setup,
            _,
        ):
            app = setup.app
            for index in range(120):
                app.gate.active = int(index >= 20)
                app.shared.relief.look(app.state)
                app.gate.active = 0
                reply = await setup.client.post("/v1/completions", json=ASK)
                assert reply.headers["x-leanmodel-route"] == ("lean" if index >= 20 else "escalated")
                await app.shared.watcher.settled()
                app.shared.watcher.look()
                if app.shared.watcher.alarms:
                    break
            assert set(app.shared.watcher.alarms) == {"under-pressure/label-free"}
            rows = {
                name: json_of
                for name, json_of in kept._db.execute("SELECT policy, state FROM watch").fetchall()
            }
            assert set(rows) == {policy.name, relaxed.name}
            first, other = (
                StateFile.watch(kept, one, 1.0, 0.025, _none(), 1e9, 0.0) for one in (policy, relaxed)
            )
            assert first.label_free[""].requests == 20 and first.label_free[""].shadowed == 0
            assert other.label_free[""].requests == other.label_free[""].shadowed == index - 19
            # The level is that of all monitors of both promises together.
            assert {one.label_free[""].level for one in (first, other)} == {0.05 / 2}
            assert other.label_free[""].bound == 0.3 and first.label_free[""].bound == 0.02
            for active in (0, 1):
                app.gate.active = active
                app.shared.relief.look(app.state)
                app.gate.active = 0
                reply = await setup.client.post("/v1/completions", json=ASK)
                assert (
                    reply.headers["x-leanmodel-reason"] == "alarm"
                    and reply.headers["x-leanmodel-route"] == "large"
                )
                assert reply.headers["x-leanmodel-alarm"] == "under-pressure/label-free"
            assert (await setup.client.get("/healthz")).json()["broken"]["policy"] == policy.name

    run(scenario)


def _none() -> Any:
    from leanmodel_routing.monitors import Counts

    return Counts()
