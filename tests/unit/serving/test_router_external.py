"""The external provider in the large model's place: asked when it may be, attributable, and never in the way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from policies_made import made
from provider_double import COST, KEY, Recorded, access, completion, opened, provider, say, sound
from router_double import ASK, cut, fine, html, router, run

from leanmodel_api.external import Patience
from leanmodel_api.router import Resilience
from leanmodel_api.serving import Price

CHAT = {"model": "m", "messages": [{"role": "user", "content": "very private"}]}
ROUTED = {"strategy": "Cascade", "policy": made("all-lean"), "overrides": True}
"""A proven lean model; what is out of scope, or wished so, goes to the large one."""
NO_RETRIES = Resilience(retries=0.0)


def rules(found: Recorded, folder: Path | None, **changes: Any) -> dict[str, Any]:
    external = {
        name: changes.pop(name) for name in ("accepts", "max_model_length", "patience") if name in changes
    }
    permission = changes.pop("permission", "Allowed")
    return {"external": access(found.url, folder, permission, **external), **changes}


def results(setup: Any) -> list[str]:
    return [labels["result"] for _, labels in setup.meters["leanmodel_external_requests"].calls]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
def test_the_provider_answers_when_the_large_model_cannot(
    tmp_path: Path, stream: bool, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ray.serve")

    async def scenario() -> None:
        body = {**(CHAT if "chat" in path else ASK), "stream": stream, "temperature": 0.5}
        if stream:
            body["stream_options"] = {"include_usage": True}
        async with (
            provider() as theirs,
            router(tmp_path, html, rules=rules(theirs, tmp_path), price=Price(usd_per_hour="1")) as setup,
        ):
            reply = await setup.client.post(f"/v1{path}", json=body, headers={"x-request-id": "abc"})
            assert reply.status_code == 200 and "from provider" in reply.text
            said = reply.headers
            assert (said["x-leanmodel-route"], said["x-leanmodel-revision"]) == ("external", "external")
            assert (said["x-leanmodel-reason"], said["x-leanmodel-promise"]) == ("large-failing", "suspended")
            assert said["x-leanmodel-certificate"] == "none"
            cost = said.get("x-leanmodel-cost-usd")
            if stream:
                last = json.loads(reply.text.split("data: ")[-2])
                cost = last["usage"]["cost_usd"]
                assert reply.text.endswith("data: [DONE]\n\n") and last["usage"]["route"] == "external"
            assert float(cost or 0) == pytest.approx(COST)
            [(asked, headers, sent)] = theirs.requests
            assert asked == f"/v1{path}"
            assert headers["authorization"] == f"Bearer {KEY}"
            assert sent["model"] == "theirs" and sent["temperature"] == 0.5
            # Neither our tokens nor our client's name for the request are the provider's business.
            assert "engine-token" not in str(headers) and "abc" not in str(headers)
            assert setup.statuses() == [("external", "200")] and results(setup) == ["answered"]
            [(spent, labels)] = setup.meters["leanmodel_cost_usd"].calls
            assert spent == pytest.approx(COST) and labels == {"route": "external", "basis": "tokens"}
            roles = {labels["role"] for _, labels in setup.meters["leanmodel_tokens"].calls}
            assert roles == {"external"}

    run(scenario)
    assert "request abc route=external reason=large-failing revision=external" in caplog.text
    assert "request abc went to the external provider: model=theirs status=200" in caplog.text
    assert KEY not in caplog.text and "very private" not in caplog.text


def test_what_was_paid_outside_is_counted_where_our_own_models_have_no_price(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with provider() as theirs, router(tmp_path, html, rules=rules(theirs, None)) as setup:
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert float(reply.headers["x-leanmodel-cost-usd"]) == pytest.approx(COST)
            assert "authorization" not in theirs.requests[0][1], "it wants no key, so it gets none"
            [(saved, _)] = setup.meters["leanmodel_saving_usd"].calls
            assert saved == 0.0

    run(scenario)


def test_first_the_provider_then_the_lean_model_then_503(tmp_path: Path) -> None:
    async def down(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "sorry", "type": "server_error"}}, status=500)

    async def scenario() -> None:
        large = {"x-leanmodel-route": "large"}
        async with (
            provider() as theirs,
            router(tmp_path, html, lean=fine, rules=rules(theirs, tmp_path, **ROUTED)) as setup,
        ):
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert reply.headers["x-leanmodel-route"] == "lean" and not theirs.touched
            # A request that wishes for the large model gets nobody else's answer.
            reply = await setup.client.post("/v1/completions", json=ASK, headers=large)
            assert reply.status_code == 503 and not theirs.touched
            assert int(reply.headers["retry-after"]) > 0

    run(scenario)

    async def chain() -> None:
        escalates = {"strategy": "Cascade", "policy": made("cascade")}
        async with (
            provider() as theirs,
            router(tmp_path, html, lean=fine, rules=rules(theirs, tmp_path, **escalates)) as setup,
        ):
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert reply.headers["x-leanmodel-route"] == "external"
            assert not setup.meters["leanmodel_escalations"].calls
            theirs.behaviour = down
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert (reply.status_code, reply.headers["x-leanmodel-route"]) == (200, "lean")
            assert reply.headers["x-leanmodel-promise"] == "suspended"
        async with provider(down) as theirs, router(tmp_path, html, rules=rules(theirs, tmp_path)) as setup:
            reply = await setup.client.post("/v1/completions", json=ASK)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_unavailable")
            assert int(reply.headers["retry-after"]) > 0

    run(chain)


async def unauthorised(request: web.Request) -> web.StreamResponse:
    return web.json_response(
        {"error": {"message": f"Incorrect key {KEY}", "code": "invalid_api_key"}}, status=401
    )


async def repeats_the_key(request: web.Request) -> web.StreamResponse:
    return web.json_response(
        {"error": {"message": f"no {KEY}", "type": "t", "param": "n", "code": "c"}}, status=400
    )


async def limited(request: web.Request) -> web.StreamResponse:
    error = {"message": "slow down", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
    return web.json_response({"error": error}, status=429, headers={"retry-after": "17"})


async def page(request: web.Request) -> web.StreamResponse:
    return web.Response(status=429, text="<html>", content_type="text/html")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "status", "error", "retry_after"),
    [
        (
            limited,
            429,
            {"message": "slow down", "type": "tokens", "param": None, "code": "rate_limit_exceeded"},
            "17",
        ),
        (page, 429, {"type": "rate_limit_error"}, "1"),
        (repeats_the_key, 400, {"message": "no [key]", "type": "t", "param": "n", "code": "c"}, None),
        (unauthorised, 503, {"code": "engine_unavailable"}, "5"),
    ],
)
def test_a_providers_refusal_is_told_in_openais_form(
    tmp_path: Path, behaviour: Any, status: int, error: dict[str, Any], retry_after: str | None, stream: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("DEBUG")

    async def scenario() -> None:
        async with (
            provider(behaviour) as theirs,
            router(tmp_path, html, rules=rules(theirs, tmp_path)) as setup,
        ):
            reply = await setup.client.post("/v1/completions", json={**ASK, "stream": stream})
            assert reply.status_code == status and error.items() <= reply.json()["error"].items()
            assert reply.headers.get("retry-after") == retry_after
            assert (reply.headers.get("x-leanmodel-route") == "external") == (status < 500)
            assert KEY not in reply.text and len(theirs.requests) == 1
            # Somebody who can answer does so instead.
        async with provider(behaviour) as theirs:
            both = rules(theirs, tmp_path, strategy="Cascade", policy=made("cascade"))
            async with router(tmp_path, html, lean=fine, rules=both) as setup:
                reply = await setup.client.post("/v1/completions", json={**ASK, "stream": stream})
                assert (reply.status_code, reply.headers["x-leanmodel-route"]) == (200, "lean")

    run(scenario)
    assert KEY not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_is_slow_is_not_waited_for(tmp_path: Path, stream: bool) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        response = await opened(request)
        while True:  # what only keeps the connection alive is no token
            await response.write(b": still here\n\n")
            await asyncio.sleep(0.02)

    async def scenario() -> None:
        short = Patience(first_byte_timeout=0.3, answer_timeout=0.3)
        async with provider(silent) as theirs:
            both = rules(theirs, tmp_path, patience=short, strategy="Cascade", policy=made("cascade"))
            async with router(tmp_path, html, lean=fine, rules=both) as setup:
                reply = await setup.client.post("/v1/completions", json={**ASK, "stream": stream})
                assert (reply.status_code, reply.headers["x-leanmodel-route"]) == (200, "lean")
                assert results(setup) == ["failed"] and len(theirs.requests) == 1

    run(scenario)


@pytest.mark.parametrize("breaks", ["stops", "hangs up"])
def test_after_the_first_byte_nobody_else_goes_on(tmp_path: Path, breaks: str) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = await opened(request)
        await say(response, {**completion("half"), "usage": None})
        if breaks == "hangs up":
            assert request.transport is not None
            request.transport.abort()
            return response
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> None:
        short = Patience(first_byte_timeout=5.0, idle_timeout=0.2)
        async with provider(half) as theirs:
            both = rules(theirs, tmp_path, patience=short, strategy="Cascade", policy=made("cascade"))
            async with router(tmp_path, html, lean=fine, rules=both) as setup:
                reply = await setup.client.post("/v1/completions", json={**ASK, "stream": True})
                datas = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
                assert "half" in datas[0] and datas[-1] == "[DONE]"
                code, status = ("engine_timeout", "504") if breaks == "stops" else ("bad_gateway", "502")
                assert json.loads(datas[-2])["error"]["code"] == code
                assert "external provider" in json.loads(datas[-2])["error"]["message"]
                assert len(theirs.requests) == 1 and "from lean" not in reply.text
                assert setup.statuses() == [("none", status)]
                # What it generated is paid for all the same.
                [(spent, labels)] = setup.meters["leanmodel_cost_usd"].calls
                assert spent > 0 and labels["route"] == "external"

    run(scenario)


def test_a_key_that_is_renewed_is_used_by_the_next_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with provider() as theirs, router(tmp_path, html, rules=rules(theirs, tmp_path)) as setup:
            file = tmp_path / "apiKey"
            for text, expected in ((f"{KEY}\n", KEY), ("sk-next", "sk-next")):
                file.write_text(text)
                assert (await setup.client.post("/v1/completions", json=ASK)).status_code == 200
                assert theirs.requests[-1][1]["authorization"] == f"Bearer {expected}"
            for bad in ("", "  \n", "two words", "a\nb", "ключ"):
                file.write_text(bad)
                assert (await setup.client.post("/v1/completions", json=ASK)).status_code == 503
                told = (await setup.client.get("/healthz")).json()
                assert "key" in told["externalError"] and (
                    not bad.strip() or bad not in told["externalError"]
                )
            file.unlink()
            assert (await setup.client.post("/v1/completions", json=ASK)).status_code == 503
            assert len(theirs.requests) == 2 and results(setup)[2:] == ["closed"] * 6
            file.write_text("sk-third")
            assert (await setup.client.post("/v1/completions", json=ASK)).status_code == 200
            assert (await setup.client.get("/healthz")).json()["externalError"] is None

    run(scenario)


IMAGE = [{"type": "image_url", "image_url": {"url": "data:,"}}]


@pytest.mark.parametrize(
    ("body", "headers", "external", "why"),
    [
        ({"tools": [{"type": "function"}]}, {}, {"accepts": []}, "tools"),
        ({"tools": [{"type": "function"}]}, {}, {"accepts": ["Tools"]}, ""),
        ({"messages": [{"role": "user", "content": IMAGE}]}, {}, {"accepts": ["Tools"]}, "images"),
        ({"messages": [{"role": "user", "content": IMAGE}]}, {}, {"accepts": ["Images"]}, ""),
        ({"max_tokens": 60}, {}, {"max_model_length": 50}, "context"),
        ({"max_tokens": 40}, {}, {"max_model_length": 50}, ""),
        ({}, {"x-leanmodel-route": "large"}, {}, "override"),
        ({"max_tokens": 10}, {"x-leanmodel-max-cost-usd": "0.0002"}, {}, "cost"),
        ({"max_tokens": 10}, {"x-leanmodel-max-cost-usd": "0.002"}, {}, ""),
    ],
)
def test_hard_rules_hold_for_the_provider_too(
    tmp_path: Path, body: dict[str, Any], headers: dict[str, str], external: dict[str, Any], why: str
) -> None:
    async def scenario() -> None:
        cheap = Price(input_usd_per_million_tokens="0.01", output_usd_per_million_tokens="0.01")
        async with provider() as theirs:
            given = rules(theirs, tmp_path, overrides=True, **external)
            async with router(tmp_path, html, rules=given, price=cheap) as setup:
                reply = await setup.client.post(
                    "/v1/chat/completions", json={**CHAT, **body}, headers=headers
                )
                assert (reply.status_code, theirs.touched) == ((503, False) if why else (200, True))
                assert results(setup) == [why or "answered"]

    run(scenario)


def test_a_redirect_leads_nowhere(tmp_path: Path) -> None:
    """Neither an engine's to the provider, nor a provider's to anybody."""

    async def scenario() -> None:
        async with provider() as other:

            async def elsewhere(request: web.Request) -> web.StreamResponse:
                raise web.HTTPTemporaryRedirect(f"{other.url}/completions")

            async with router(tmp_path, elsewhere) as setup:
                assert (await setup.client.post("/v1/completions", json=ASK)).status_code == 502
            async with provider(elsewhere) as theirs:
                async with router(tmp_path, html, rules=rules(theirs, tmp_path)) as setup:
                    assert (await setup.client.post("/v1/completions", json=ASK)).status_code == 503
                assert len(theirs.requests) == 1
            assert not other.touched

    run(scenario)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_hangs_up_on_the_provider(tmp_path: Path, stream: bool) -> None:
    async def scenario() -> None:
        asked = asyncio.Event()

        async def endless(request: web.Request) -> web.StreamResponse:
            if stream:
                response = await opened(request)
                await say(response, {**completion("half"), "usage": None})
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with (
            provider(endless) as theirs,
            router(tmp_path, html, rules=rules(theirs, tmp_path)) as setup,
        ):
            task = asyncio.create_task(setup.client.post("/v1/completions", json={**ASK, "stream": stream}))
            await asked.wait()
            if stream:
                while not setup.meters["gen_ai_server_time_to_first_token_seconds"].calls:
                    await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(5):
                while not theirs.hung_up:
                    await asyncio.sleep(0.01)
            assert setup.statuses() == [("none", "499")]
            if stream:
                assert setup.meters["leanmodel_cost_usd"].calls[0][0] > 0, "what was generated is paid for"

    run(scenario)


USAGES = [{}, None, [], "5", {"prompt_tokens": "x", "completion_tokens": -3}, {"prompt_tokens": None}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", USAGES)
def test_a_provider_that_does_not_say_its_usage_is_counted_by_the_bytes(
    tmp_path: Path, stream: bool, usage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def odd(request: web.Request) -> web.StreamResponse:
        found = {**completion(), "usage": usage}
        if not stream:
            return web.json_response(found)
        response = await opened(request)
        await say(response, found, "not JSON", "[DONE]")
        return response

    async def scenario() -> None:
        async with provider(odd) as theirs, router(tmp_path, html, rules=rules(theirs, tmp_path)) as setup:
            reply = await setup.client.post("/v1/completions", json={**ASK, "stream": stream})
            assert reply.status_code == 200 and "from provider" in reply.text
            [(spent, labels)] = setup.meters["leanmodel_cost_usd"].calls
            assert spent > 0 and labels["route"] == "external"

    run(scenario)
    assert "did not say its usage" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_that_calls_itself_200_is_one(tmp_path: Path, stream: bool) -> None:
    async def wolf(request: web.Request) -> web.StreamResponse:
        error = {"error": {"message": "overloaded", "type": "x", "code": 502}}
        if not stream:
            return web.json_response(error)
        response = await opened(request)
        await say(response, error, "[DONE]")
        return response

    async def scenario() -> None:
        async with provider(wolf) as theirs:
            both = rules(theirs, tmp_path, strategy="Cascade", policy=made("cascade"))
            async with router(tmp_path, html, lean=fine, rules=both) as setup:
                reply = await setup.client.post("/v1/completions", json={**ASK, "stream": stream})
                assert (reply.status_code, reply.headers["x-leanmodel-route"]) == (200, "lean")
                assert "overloaded" not in reply.text and results(setup) == ["failed"]

    run(scenario)


# ---------------------------------------------------------------- second tries


def tries(setup: Any) -> list[tuple[str, str]]:
    return [(labels["role"], labels["result"]) for _, labels in setup.meters["leanmodel_retries"].calls]


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_at_once_is_tried_again_within_the_budget(tmp_path: Path, stream: bool) -> None:
    async def scenario() -> None:
        turn = [0]

        async def every_other(request: web.Request) -> web.StreamResponse:
            turn[0] += 1
            return await (html if turn[0] % 2 else fine)(request)

        async with router(tmp_path, every_other, rules={"resilience": Resilience(retries=0.1)}) as setup:
            statuses = []
            for _ in range(40):
                reply = await setup.client.post("/v1/completions", json={**ASK, "stream": stream})
                statuses.append(reply.status_code)
            again = tries(setup)
            # The reserve of ten and a tenth of the requests; then the budget holds, and every other one fails.
            assert 10 <= again.count(("large", "answered")) <= 10 + 0.1 * 40
            assert ("large", "no-budget") in again and 503 in statuses
            assert statuses.count(200) >= 20

    run(scenario)


def test_no_second_try_where_none_is_wanted_or_something_is_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, html, rules={"resilience": NO_RETRIES}) as setup:
            await setup.client.post("/v1/completions", json=ASK)
            assert len(setup.seen) == 1
        async with router(tmp_path, cut) as setup:
            await setup.client.post("/v1/completions", json={**ASK, "stream": True})
            assert len(setup.seen) == 1

    run(scenario)


def test_the_provider_is_tried_again_too_and_permission_is_asked_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        forbids = [False]

        async def once(request: web.Request) -> web.StreamResponse:
            if len(theirs.requests) > 1:
                return await sound(request)
            if forbids[0]:
                closed = setup.app.state.settings.model_copy(update={"external": None, "generation": 9})
                (tmp_path / "router.json").write_text(closed.to_json())
            return web.Response(status=503)

        async with provider(once) as theirs:
            given = rules(theirs, tmp_path, resilience=Resilience(failures=100))
            async with router(tmp_path, html, rules=given) as setup:
                reply = await setup.client.post("/v1/completions", json=ASK)
                assert reply.status_code == 200 and len(theirs.requests) == 2
                assert tries(setup) == [("large", "failed"), ("external", "answered")]
                theirs.requests.clear()
                forbids[0] = True
                reply = await setup.client.post("/v1/completions", json=ASK)
                assert reply.status_code == 503 and len(theirs.requests) == 1

    run(scenario)


def test_while_a_backend_rests_nobody_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        rest = Resilience(failures=2, open_seconds=600.0, retries=0.0)
        async with provider(html) as theirs:
            given = rules(theirs, tmp_path, resilience=rest)
            async with router(tmp_path, html, rules=given) as setup:
                for _ in range(5):
                    reply = await setup.client.post("/v1/completions", json=ASK)
                    assert reply.status_code == 503
                assert len(setup.seen) == 2 and len(theirs.requests) == 2
                assert 590 <= int(reply.headers["retry-after"]) <= 600
                assert results(setup) == ["failed"] * 2 + ["resting"] * 3
                states = [
                    (labels["role"], value) for value, labels in setup.meters["leanmodel_backend_state"].calls
                ]
                assert states[-2:] == [("large", 2.0), ("external", 2.0)]

    run(scenario)
