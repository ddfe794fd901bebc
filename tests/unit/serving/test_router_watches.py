"""The promise is watched: state that survives, periods shared by replicas, shadows, and the alarm."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from policies_made import made
from router_double import ASK, Setup, answer, fine, html, router, run

from leanmodel_api.policy import Scope
from leanmodel_api.serving import Price
from leanmodel_routing.monitors import Counts, Tally, Watch
from leanmodel_serving.router.conversations import Conversation
from leanmodel_serving.router.state import PIN_S, StateFile, after, kept_in

POLICY = made("all-lean", bound=0.02)
TOKENS = Price(input_usd_per_million_tokens="1", output_usd_per_million_tokens="1")


def counts(requests: int, harms: int, rate: float = 0.5) -> Counts:
    tally = Tally(POLICY.scores.edges if POLICY.scores else ())
    for index in range(requests):
        tally.request(0.5, accepted=True)
        if index < harms:
            tally.shadow(True, rate)
    return tally.counts()


def test_a_watch_goes_on_where_the_replica_before_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first = StateFile(path)
    first.watch(POLICY, 0.5, 0.05, counts(50, 1), 60.0, now=0.0)
    seen = first.watch(POLICY, 0.5, 0.05, counts(50, 1), 60.0, now=61.0)
    first.close()
    second = StateFile(path)
    again = second.watch(POLICY, 0.5, 0.05, Counts(), 60.0, now=62.0)
    assert (
        again == seen and again.label_free[""].requests == 100 and again.label_free[""].capital.periods == 1
    )


def test_an_alarm_outlives_the_replica_and_ends_with_its_policy(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state = StateFile(path)
    state.watch(POLICY, 0.5, 0.05, Counts(), 60.0, now=0.0)
    assert "label-free" in state.watch(POLICY, 0.5, 0.05, counts(100, 50), 60.0, now=61.0).alarms()
    state.close()
    other = StateFile(path)
    assert "label-free" in other.watch(POLICY, 0.5, 0.05, Counts(), 60.0, now=62.0).alarms()
    assert not other.watch(made("all-lean", bound=0.03), 0.5, 0.05, Counts(), 60.0, now=62.0).alarms()
    assert "label-free" in other.watch(POLICY, 0.5, 0.05, Counts(), 60.0, now=63.0).alarms()


def test_replicas_share_one_period(tmp_path: Path) -> None:
    replicas = [StateFile(tmp_path / "state.db") for _ in range(3)]
    for step in range(30):
        replicas[step % 3].watch(POLICY, 0.5, 0.05, counts(10, 0), 60.0, now=float(step))
    found = replicas[0].watch(POLICY, 0.5, 0.05, counts(10, 1), 60.0, now=61.0)
    assert (found.label_free[""].requests, found.label_free[""].capital.periods) == (310, 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), max_size=12))
@settings(max_examples=40, deadline=None)
def test_no_count_is_lost_or_doubled_however_it_comes(parts: list[tuple[int, int, bool]]) -> None:
    watch, pending = Watch.of(POLICY, 0.5, 0.05), Counts()
    for requests, harms, over in parts:
        watch, pending, _ = after(watch, pending, counts(requests, min(harms, requests)), over)
    watch, pending, _ = after(watch, pending, Counts(), True)
    monitor = watch.label_free[""]
    assert pending.requests == 0 and monitor.requests == sum(requests for requests, _, _ in parts)
    assert monitor.shadowed == sum(min(harms, requests) for requests, harms, _ in parts)


def test_an_unreadable_state_begins_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = StateFile(tmp_path / "state.db")
    state.watch(POLICY, 0.5, 0.05, counts(5, 0), 60.0, now=0.0)
    state._db.execute("UPDATE watch SET state = '{}'")
    assert state.watch(POLICY, 0.5, 0.05, Counts(), 60.0, now=100.0).label_free[""].requests == 0
    assert "begins anew" in caplog.text


def test_pins_are_shared_and_forgotten_after_a_day(tmp_path: Path) -> None:
    one, other = StateFile(tmp_path / "state.db"), StateFile(tmp_path / "state.db")
    one.pins([b"a", b"b"], 0.0, now=1000.0)
    assert sorted(other.pins([], 0.0, now=1001.0)) == [b"a", b"b"]
    assert other.pins([], 1002.0, now=1003.0) == []
    assert other.pins([b"c"], 0.0, now=1000.0 + PIN_S + 1) == [b"c"]


def test_a_file_that_is_none_is_put_aside_and_one_that_cannot_be_is_done_without(tmp_path: Path) -> None:
    broken = tmp_path / "state.db"
    broken.write_text("no database at all, but long enough to be taken for one" * 20)
    state = kept_in(broken)
    state.watch(POLICY, 0.5, 0.05, counts(5, 0), 60.0, now=0.0)
    state.watch(POLICY, 0.5, 0.05, Counts(), 60.0, now=61.0)
    assert StateFile(broken).watch(POLICY, 0.5, 0.05, Counts(), 60.0, now=62.0).label_free[""].requests == 5
    assert (tmp_path / "state.db.broken").exists()
    nowhere = kept_in(tmp_path / "state.db" / "below a file")
    assert nowhere.watch(POLICY, 0.5, 0.05, counts(5, 0), 60.0, now=0.0).names() == [
        "label-free",
        "score-drift",
    ]


# ---------------------------------------------------------------- through the router


async def same(request: web.Request) -> web.StreamResponse:
    """What both models say alike."""
    body = await request.json()
    made_of = answer(body["model"])
    made_of["choices"][0]["text"] = " the same "
    return web.json_response(made_of)


def rules(**changes: Any) -> dict[str, Any]:
    watching = {"shadowing": 1.0, "false_alarms": 0.05, "period_seconds": 1e-9}
    return {"strategy": "Cascade", "policy": POLICY, "watching": watching, **changes}


def shadows(setup: Setup) -> list[str]:
    return [labels["result"] for _, labels in setup.meters["leanmodel_shadows"].calls]


def test_an_accepted_answer_is_shadowed_after_it_was_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        held = asyncio.Event()

        async def slow(request: web.Request) -> web.StreamResponse:
            await held.wait()
            return await fine(request)

        async with router(tmp_path, slow, lean=fine, rules=rules()) as setup:
            reply = await setup.client.post("/v1/completions", json={**ASK, "logprobs": 2, "user": "u"})
            assert reply.headers["x-leanmodel-route"] == "lean"  # while the large model has not answered yet
            held.set()
            await setup.app.shared.watcher.settled()
            assert shadows(setup) == ["different"]
            assert [name for name, _ in setup.seen] == ["lean", "large"]
            setup.app.shared.watcher.look()
            costs = [labels.get("route") for _, labels in setup.meters["leanmodel_cost_usd"].calls]
            assert "shadow" not in costs  # there is no price here

    run(scenario)


def test_equal_answers_are_no_harm_and_shadows_are_paid_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, same, lean=same, rules=rules(), price=TOKENS) as setup:
            for _ in range(3):
                await setup.client.post("/v1/completions", json=ASK)
            await setup.app.shared.watcher.settled()
            assert shadows(setup) == ["same"] * 3
            spent = [
                v for v, labels in setup.meters["leanmodel_cost_usd"].calls if labels["route"] == "shadow"
            ]
            assert spent == pytest.approx([3e-6] * 3)

    run(scenario)


def test_a_shadow_that_fails_is_counted_and_harms_nobody(tmp_path: Path) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    async def scenario() -> None:
        async with router(tmp_path, broken, lean=fine, rules=rules()) as setup:
            reply = await setup.client.post("/v1/completions", json=ASK)
            await setup.app.shared.watcher.settled()
            assert reply.status_code == 200 and shadows(setup) == ["failed"]

    run(scenario)


@pytest.mark.parametrize("stream", [False, True])
def test_harm_raises_the_alarm_and_all_go_large_with_nobodys_help(tmp_path: Path, stream: bool) -> None:
    async def scenario() -> None:
        kept = StateFile(tmp_path / "state.db")
        async with router(tmp_path, fine, lean=fine, rules=rules(), kept=kept) as setup:
            routes = []
            for _ in range(60):
                reply = await setup.client.post("/v1/completions", json={**ASK, "stream": stream})
                routes.append(reply.headers["x-leanmodel-route"])
                await setup.app.shared.watcher.settled()
                setup.app.shared.watcher.look()
            first = routes.index("large")
            assert 0 < first < 60 and set(routes[:first]) == {"lean"} and set(routes[first:]) == {"large"}
            assert reply.headers["x-leanmodel-alarm"] == "label-free"
            assert reply.headers["x-leanmodel-reason"] == "alarm"
            health = (await setup.client.get("/healthz")).json()
            assert "is broken" in health["broken"]["alarms"]["label-free"]
            assert setup.meters["leanmodel_alarm"].calls[-1][0] in (0.0, 1.0)
            assert (1.0, {"monitor": "label-free"}) in setup.meters["leanmodel_alarm"].calls
            # New settings with the same policy change nothing of it, another policy ends it.
            assert len(shadows(setup)) == first
        async with router(tmp_path, fine, lean=fine, rules=rules(), kept=kept) as setup:
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert reply.headers["x-leanmodel-alarm"] == "label-free"
        other = rules(policy=made("all-lean", bound=0.5))
        async with router(tmp_path, fine, lean=fine, rules=other, kept=kept) as setup:
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert reply.headers["x-leanmodel-route"] == "lean"

    run(scenario)


def test_what_could_not_be_stored_goes_along_the_next_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "state.db"
        kept = StateFile(path)
        quiet = rules(watching={"shadowing": 0.0, "period_seconds": 1e-9})
        async with router(tmp_path, same, lean=same, rules=quiet, kept=kept) as setup:
            watcher, told = setup.app.shared.watcher, setup.meters["leanmodel_watch_kept"]
            kept.close()
            for step in range(3):
                await setup.client.post("/v1/completions", json=ASK)
                watcher.pins.pin(Conversation(bytes([step]), True))
                watcher.look()
            assert told.calls[-1][0] == 0.0
            assert "cannot be kept" in (await setup.client.get("/healthz")).json()["watchError"]
            watcher._state = StateFile(path)
            watcher.look()
            watcher.look()
            assert told.calls[-1][0] == 1.0 and not watcher.problem
            state = StateFile(path).watch(POLICY, 0.02, 0.05, Counts(), 60.0, now=0.0)
            assert state.label_free[""].requests == 3
            assert len(StateFile(path).pins([], 0.0, now=1.0)) == 3

    run(scenario)


def test_what_the_settings_have_on_record_needs_no_state(tmp_path: Path) -> None:
    """The pod that raised the alarm is gone with its file; the record names the policy that it is about."""

    async def scenario() -> None:
        for policy, route in ((POLICY, "large"), (made("all-lean", bound=0.5), "lean")):
            broken = {"policy": POLICY.digest, "alarms": {"score-drift": "have drifted"}}
            async with router(tmp_path, same, lean=same, rules=rules(policy=policy, broken=broken)) as setup:
                reply = await setup.client.post("/v1/completions", json=ASK)
                assert reply.headers["x-leanmodel-route"] == route
                assert reply.headers.get("x-leanmodel-alarm") == ("score-drift" if route == "large" else None)
                setup.app.shared.watcher.look()
                again = await setup.client.post("/v1/completions", json=ASK)
                assert again.headers["x-leanmodel-route"] == route
                await setup.app.shared.watcher.settled()

    run(scenario)


def test_only_what_the_policy_decided_is_counted(tmp_path: Path) -> None:
    """Out of scope, later turns and overrides tell nothing of the certificate."""
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]

    async def scenario() -> None:
        policy = made("all-lean", scope=Scope(temperature=0.0))
        async with router(tmp_path, same, lean=same, rules=rules(policy=policy, overrides=True)) as setup:
            ask = {**ASK, "temperature": 0}
            for body, headers, path in (
                (ask, {}, "completions"),
                ({**ask, "temperature": 1}, {}, "completions"),
                (ask, {"x-leanmodel-route": "lean"}, "completions"),
                (ask, {"x-leanmodel-min-confidence": "0.5"}, "completions"),
                ({"model": "m", "temperature": 0, "messages": turns}, {}, "chat/completions"),
            ):
                reply = await setup.client.post(f"/v1/{path}", json=body, headers=headers)
                assert reply.status_code == 200, reply.text
            await setup.app.shared.watcher.settled()
            assert shadows(setup) == ["same"]

    run(scenario)


def test_policies_change_under_load_and_no_answer_is_lost_or_counted_twice(tmp_path: Path) -> None:
    """Three policies in turn, fifty times; no watch holds more than what its own policy decided."""

    async def scenario() -> None:
        kept = StateFile(tmp_path / "state.db")
        # Without scores: one prompt again and again is a drift, and rightly seen as one.
        policies = [
            made("all-lean", scores=None),
            made("predictive", scores=None),
            made("predictive", scores=None, ask_at=0.9999),
        ]
        watching = {"shadowing": 0.3, "period_seconds": 1e-9}
        start = rules(policy=policies[0], watching=watching)
        async with router(tmp_path, same, lean=same, rules=start, kept=kept) as setup:
            over, decided = asyncio.Event(), dict.fromkeys((policy.digest[7:19] for policy in policies), 0)

            async def client() -> None:
                while not over.is_set():
                    reply = await setup.client.post("/v1/completions", json=ASK)
                    assert reply.status_code == 200
                    decided[reply.headers["x-leanmodel-policy"]] += 1

            clients = [asyncio.create_task(client()) for _ in range(8)]
            file, before = tmp_path / "router.json", setup.app.state.settings
            for index in range(50):
                changes = {"generation": index + 1, "policy": policies[index % 3]}
                file.write_text(before.model_copy(update=changes).to_json())
                setup.app.reload()
                seen = sum(decided.values())
                while sum(decided.values()) < seen + 24:
                    await asyncio.sleep(0)
            over.set()
            await asyncio.gather(*clients)
            await setup.app.shared.watcher.settled()
            setup.app.shared.watcher.look()
            assert setup.app.state.settings.generation == 50
            for policy in policies:
                found = kept.watch(policy, 0.3, 0.05, Counts(), 1e-9, now=2e9)
                # What ended after its policy was replaced is not counted.
                assert 0 < found.label_free[""].requests <= decided[policy.digest[7:19]]
                assert not found.alarms()

    run(scenario)


def test_a_share_is_shadowed_by_lot(tmp_path: Path) -> None:
    async def scenario() -> None:
        share = rules(watching={"shadowing": 0.25, "period_seconds": 86400})
        async with router(tmp_path, same, lean=same, rules=share) as setup:
            setup.app.shared.watcher._lots = random.Random(1)
            for _ in range(200):
                await setup.client.post("/v1/completions", json=ASK)
                await setup.app.shared.watcher.settled()
            assert 35 <= len(shadows(setup)) <= 65

    run(scenario)


# ---------------------------------------------------------------- attribution, conversations, streams


def test_every_answer_names_policy_certificate_and_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ray.serve")

    async def scenario() -> None:
        async with router(tmp_path, same, lean=same, rules=rules(overrides=True)) as setup:
            digest = POLICY.digest.removeprefix("sha256:")[:12]
            plain = await setup.client.post("/v1/completions", json=ASK, headers={"x-request-id": "r-1"})
            assert plain.headers["x-leanmodel-policy"] == digest
            assert plain.headers["x-leanmodel-certificate"].startswith("retain=0.95; risk=0.1;")
            assert (plain.headers["x-leanmodel-reason"], plain.headers["x-leanmodel-revision"]) == (
                "policy",
                "lean",
            )
            wished = await setup.client.post(
                "/v1/completions", json=ASK, headers={"x-leanmodel-route": "lean"}
            )
            assert wished.headers["x-leanmodel-certificate"] == "none"
            refused = await setup.client.post("/v1/completions", json={"model": "m"})
            assert refused.status_code == 400 and refused.headers["x-leanmodel-policy"] == digest
            line = next(record.message for record in caplog.records if "request r-1 " in record.message)
            for part in (
                f"policy={digest}",
                "revision=lean",
                "certificate=retain=0.95;",
                "reason=policy",
                "status=200",
            ):
                assert part in line

    run(scenario)


def test_overrides_are_refused_unless_allowed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, same, lean=same, rules=rules()) as setup:
            reply = await setup.client.post(
                "/v1/completions", json=ASK, headers={"x-leanmodel-route": "large"}
            )
            assert reply.status_code == 403 and reply.json()["error"]["code"] == "override_not_allowed"

    run(scenario)


def test_a_conversation_does_not_come_back_from_the_large_model(tmp_path: Path) -> None:
    kept = tmp_path / "state.db"
    talk = [{"role": "user", "content": "a"}]

    async def turn(setup: Setup, **body: Any) -> str:
        reply = await setup.client.post("/v1/chat/completions", json={"model": "m", "messages": talk, **body})
        talk.extend([{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}])
        return f"{reply.headers['x-leanmodel-route']} {reply.headers['x-leanmodel-reason']}"

    async def scenario() -> None:
        quiet = rules(policy=made("all-lean", scope=Scope(temperature=0.0)), watching={"shadowing": 0.0})
        async with router(tmp_path, same, lean=same, rules=quiet, kept=StateFile(kept)) as setup:
            assert await turn(setup, temperature=0) == "lean policy"
            assert await turn(setup, temperature=0) == "lean policy"
            assert await turn(setup, temperature=1) == "large scope"
            assert await turn(setup, temperature=0) == "large conversation"
            setup.app.shared.watcher.look()
        async with router(tmp_path, same, lean=same, rules=quiet, kept=StateFile(kept)) as setup:
            assert await turn(setup, temperature=0) == "large conversation"

    run(scenario)


def test_a_stream_that_nobody_judges_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        going_on = asyncio.Event()

        async def halting(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b'data: {"choices": [{"index": 0, "text": "one"}]}\n\n')
            await going_on.wait()
            await response.write(b'data: {"choices": [{"index": 0, "text": "two"}]}\n\ndata: [DONE]\n\n')
            return response

        async with router(tmp_path, fine, lean=halting, rules=rules(policy=made("predictive"))) as setup:
            sent: list[bytes] = []
            body = json.dumps({**ASK, "stream": True}).encode()
            scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": body, "more_body": False}

            async def send(message: Any) -> None:
                sent.append(message.get("body", b""))
                if b"one" in sent[-1]:
                    going_on.set()

            await setup.app(scope, receive, send)
            text = b"".join(sent)
            assert text.index(b"one") < text.index(b"two") < text.index(b"[DONE]")
            await setup.app.shared.watcher.settled()

    run(scenario)


def test_a_passed_on_stream_that_breaks_says_so_and_never_switches(tmp_path: Path) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"index": 0, "text": "half"}]}\n\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    async def scenario() -> None:
        async with router(tmp_path, fine, lean=breaks, rules=rules(policy=made("predictive"))) as setup:
            reply = await setup.client.post("/v1/completions", json={**ASK, "stream": True})
            lines = [line for line in reply.text.splitlines() if line]
            assert "half" in lines[0] and "from large" not in reply.text
            assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "bad_gateway"
            assert lines[-1] == "data: [DONE]" and setup.statuses() == [("none", "502")]
            assert shadows(setup) == []

    run(scenario)


# ---------------------------------------------------------------- the large model down


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["cascade", "predictive", "all-lean"])
def test_the_lean_model_stands_in_for_a_large_one_that_is_down_and_says_so(
    tmp_path: Path, stream: bool, kind: str
) -> None:
    """The cascade escalates, since there are no log-probs; the others send large what is out of scope."""

    async def scenario() -> None:
        policy = made(kind, scope=Scope(temperature=0.0))
        body = {**ASK, "stream": stream, "temperature": 0 if kind == "cascade" else 1}
        async with router(tmp_path, html, lean=fine, rules=rules(policy=policy)) as setup:
            for _ in range(5):
                reply = await setup.client.post("/v1/completions", json=body)
                assert (
                    reply.status_code == 200 and "from lean" in reply.text and "from large" not in reply.text
                )
                assert reply.headers["x-leanmodel-promise"] == "suspended"
                assert reply.headers["x-leanmodel-certificate"] == "none"
                assert reply.headers["x-leanmodel-reason"] == "large-failing"
            # After three failures in a row the large engine is left alone for a while.
            assert [name for name, _ in setup.seen].count("large") == 3
            assert shadows(setup) == [] and setup.statuses() == [("lean", "200")] * 5

    run(scenario)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_lean_model_may_not_do_is_not_done_in_the_large_ones_place(
    tmp_path: Path, stream: bool
) -> None:
    async def scenario() -> None:
        async with router(tmp_path, html, lean=fine, rules=rules(overrides=True)) as setup:
            for body, headers in (
                ({"tools": [{"type": "function"}]}, {}),
                ({}, {"x-leanmodel-route": "large"}),
            ):
                reply = await setup.client.post(
                    "/v1/completions", json={**ASK, "stream": stream, **body}, headers=headers
                )
                assert reply.status_code == 503 and int(reply.headers["retry-after"]) > 0
            assert {name for name, _ in setup.seen} == {"large"}

    run(scenario)


def test_both_down_is_an_error_of_openais_form(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, html, lean=html, rules=rules()) as setup:
            for _ in range(8):
                reply = await setup.client.post("/v1/completions", json=ASK)
                assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_unavailable")

    run(scenario)


def test_a_client_that_counts_money_is_told_of_both_lean_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        judged = rules(policy=made("cascade"))
        async with router(tmp_path, html, lean=fine, rules=judged, price=TOKENS) as setup:
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert float(reply.headers["x-leanmodel-cost-usd"]) == pytest.approx(6e-6)

    run(scenario)
