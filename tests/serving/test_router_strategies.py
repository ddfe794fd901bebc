"""Policies of version 2 on real engines: the prompt decides, accepted answers are shadowed, and harm goes all-large."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from policies_made import made
from serving_support import LARGE, LEAN, Stack, events, sample, until

from leanmodel_api.router import Watching

pytestmark = pytest.mark.long

SHORT, LONG = "The capital of France is", " ".join(["the"] * 60)


@pytest.fixture
def both(pair: Stack) -> Iterator[Stack]:
    yield pair
    pair.configure(lean=pair.backend(LEAN))


@pytest.mark.parametrize("stream", [False, True])
def test_the_prompt_alone_decides(both: Stack, stream: bool) -> None:
    both.configure(lean=both.backend(LEAN), strategy="Cascade", policy=made("predictive"))
    for prompt, route, revision in ((SHORT, "lean", LEAN), (LONG, "large", LARGE)):
        asked = sample(both.internal(LEAN, "/metrics").text, "vllm:request_success_total")
        reply = both.post("/v1/completions", {"prompt": prompt, "max_tokens": 3, "stream": stream})
        bodies = events(reply.text) if stream else [reply.json()]
        assert {body["model"] for body in bodies} == {revision}
        assert reply.headers["x-leanmodel-route"] == route and reply.headers["x-leanmodel-reason"] == "policy"
        assert reply.headers["x-leanmodel-confidence"]
        more = sample(both.internal(LEAN, "/metrics").text, "vllm:request_success_total") - asked
        assert more == (1 if route == "lean" else 0)


def test_a_combined_policy_reads_prompt_and_answer(both: Stack) -> None:
    policy = made("combined", threshold=1e-9)
    both.configure(lean=both.backend(LEAN), strategy="Cascade", policy=policy)
    assert (
        both.post("/v1/completions", {"prompt": SHORT, "max_tokens": 3}).headers["x-leanmodel-route"]
        == "lean"
    )
    assert (
        both.post("/v1/completions", {"prompt": LONG, "max_tokens": 3}).headers["x-leanmodel-route"]
        == "large"
    )
    both.configure(lean=both.backend(LEAN), strategy="Cascade", policy=made("combined", threshold=1.0))
    reply = both.post("/v1/completions", {"prompt": SHORT, "max_tokens": 3})
    assert reply.headers["x-leanmodel-route"] == "escalated"


def test_harm_seen_by_shadows_sends_all_to_the_large_model(both: Stack) -> None:
    """Two models of one family cut to different depths hardly ever say the same; the certificate says 1%."""
    policy = made("all-lean", bound=0.01)
    watching = Watching(shadowing=1.0, period_seconds=0.5)
    both.configure(lean=both.backend(LEAN), strategy="Cascade", policy=policy, watching=watching)
    numbers = iter(range(1000))

    def alarmed() -> bool:
        body = {"prompt": f"Number {next(numbers)}: once upon a time", "max_tokens": 8}
        reply = both.post("/v1/completions", body)
        assert reply.status_code == 200
        return reply.headers.get("x-leanmodel-alarm") == "label-free"

    assert not alarmed()
    until(alarmed, 60.0, "the alarm")
    after = both.post("/v1/completions", {"prompt": SHORT, "max_tokens": 3})
    assert (after.headers["x-leanmodel-route"], after.headers["x-leanmodel-reason"]) == ("large", "alarm")
    assert "is broken" in both.client.get("/healthz").json()["broken"]["alarms"]["label-free"]

    def shown() -> bool:
        text = both.metrics()
        return (
            sample(text, "ray_leanmodel_alarm", monitor="label-free") == 1
            and sample(text, "ray_leanmodel_shadows_total", result="different") > 3
            and sample(text, "ray_leanmodel_cost_usd_total", route="shadow") > 0
        )

    until(shown, 30.0, "alarm, shadows and their cost are in the metrics")
    # The same policy again, by whatever settings, is the same broken promise; another one begins anew.
    both.configure(lean=both.backend(LEAN), strategy="Cascade", policy=policy)
    assert both.post("/v1/completions", {"prompt": SHORT, "max_tokens": 3}).headers["x-leanmodel-alarm"]
    both.configure(lean=both.backend(LEAN), strategy="Cascade", policy=made("all-lean", bound=0.5))
    fresh = both.post("/v1/completions", {"prompt": SHORT, "max_tokens": 3})
    assert fresh.headers["x-leanmodel-route"] == "lean" and "x-leanmodel-alarm" not in fresh.headers
    until(lambda: both.running(LARGE) == 0, 20.0, "no shadow is left at the engine")
