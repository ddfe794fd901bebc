"""Breaker, limiter, guard, settings file, routes: the small parts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from leanmodel_api.policy import Certificate, LinearHead, PartSizes, Policy, Predictor, Scope, SignalSpec
from leanmodel_api.router import Backend, Resilience, RouterSettings
from leanmodel_serving.engines.guard import guarded
from leanmodel_serving.router.ask import Ask
from leanmodel_serving.router.breaker import Breaker
from leanmodel_serving.router.errors import ApiError
from leanmodel_serving.router.http import JSON, Answer
from leanmodel_serving.router.limiter import Limiter
from leanmodel_serving.router.route import choose, scope_kind
from leanmodel_serving.router.snapshot import SettingsFile, Snapshot


def policy(kind: str = "cascade", signal: str = "mean-logprob", scope: Scope | None = None) -> Policy:
    certificate = Certificate(
        retain=0.95, confidence=0.9, n=10, p_value=0.01, certified=True, outcome="cascade-certified", message="",
        parts=PartSizes(fit=1, certify=10, report=1),
    )  # fmt: skip
    predictor = Predictor(
        kind="fine", name="t", signals=(SignalSpec(name=signal),), feature_names=("f",), means=(0.0,), scales=(1.0,),
        heads=(LinearHead(intercept=0.0, coefficients=(1.0,)),),
    )  # fmt: skip
    return Policy(
        kind=kind, predictor=predictor, threshold=0.5, certificate=certificate, expected_large_share=0.5,
        scope=scope or Scope(),
    ).sealed()  # fmt: skip


def settings(**changes: Any) -> RouterSettings:
    large = Backend(revision="large-1", url="http://127.0.0.1:1/engines/large-1")
    return RouterSettings(**{"model": "m", "large": large, **changes})


LEAN = Backend(revision="lean-1", url="http://127.0.0.1:1/engines/lean-1")
ASK = Ask("completions", {"prompt": "p"}, False, False)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("changes", "way", "scope"),
    [
        ({}, "large", ""),
        ({"lean": LEAN}, "large", ""),
        ({"lean": LEAN, "strategy": "AllLean"}, "lean", ""),
        ({"lean": LEAN, "strategy": "AllLarge", "policy": policy()}, "large", ""),
        ({"lean": LEAN, "strategy": "Cascade", "policy": policy()}, "try", ""),
        ({"lean": LEAN, "strategy": "Cascade", "policy": policy("all-large")}, "large", ""),
        ({"lean": LEAN, "strategy": "Cascade", "policy": policy("all-lean")}, "lean", ""),
        (
            {"lean": LEAN, "strategy": "Cascade", "policy": policy(scope=Scope(endpoint="chat"))},
            "large",
            "endpoint: completions, certified for chat",
        ),
    ],
)
def test_where_a_request_starts(changes: dict[str, Any], way: str, scope: str) -> None:
    route = choose(Snapshot.of(settings(**changes)), ASK)
    assert (route.way, route.scope) == (way, scope)


def test_what_the_certificate_samples_with_is_filled_in_inside_its_scope_only() -> None:
    scope = Scope(temperature=0.0, max_tokens=3)
    state = Snapshot.of(settings(lean=LEAN, strategy="Cascade", policy=policy(scope=scope)))
    assert choose(state, ASK).fill == {"temperature": 0.0, "max_tokens": 3}
    outside = choose(state, Ask("completions", {"prompt": "p", "temperature": 1}, False, False))
    assert outside.way == "large" and outside.fill == {}


def test_scope_kinds_are_a_closed_set() -> None:
    assert scope_kind("temperature: 1, certified for 0") == "temperature"
    assert scope_kind("my_own_field_7: not part of the certificate") == "other"


def test_an_artifact_that_is_not_the_certified_one_is_out_of_scope() -> None:
    digest = "sha256:" + "a" * 64
    scope = Scope(lean_revision="sha256:" + "b" * 64)
    lean = LEAN.model_copy(update={"artifact": digest})
    assert (
        choose(Snapshot.of(settings(lean=lean, strategy="Cascade", policy=policy(scope=scope))), ASK).way
        == "large"
    )
    assert (
        choose(Snapshot.of(settings(lean=LEAN, strategy="Cascade", policy=policy(scope=scope))), ASK).way
        == "try"
    )


def test_the_breaker_opens_rests_and_lets_one_try() -> None:
    clock = Clock()
    breaker = Breaker(Resilience(failures=3, open_seconds=5.0), clock=clock)
    for _ in range(2):
        breaker.saw(ok=False)
    assert breaker.allows()
    breaker.saw(ok=False)
    assert not breaker.allows()
    clock.now += 5.1
    assert breaker.allows() and not breaker.allows()
    breaker.saw(ok=True)
    assert breaker.allows() and breaker.allows()


def test_the_limiter_bounds_number_and_rate() -> None:
    clock = Clock()
    limiter = Limiter(clock)
    with limiter.slot(1, 100.0):
        with pytest.raises(ApiError) as refused, limiter.slot(1, 100.0):
            pass
        assert refused.value.status == 429
    assert limiter.active == 0
    slow = Limiter(clock)
    for _ in range(2):
        with slow.slot(10, 2.0):
            pass
    with pytest.raises(ApiError), slow.slot(10, 2.0):
        pass
    clock.now += 0.5
    with slow.slot(10, 2.0):
        pass


def test_a_failure_inside_gives_the_place_back() -> None:
    limiter = Limiter(Clock())
    with pytest.raises(KeyError), limiter.slot(1, 100.0):
        raise KeyError
    with limiter.slot(1, 100.0):
        pass


def _ask_guarded(headers: list[tuple[bytes, bytes]]) -> tuple[int, bool]:
    reached = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(True)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    asyncio.run(guarded(app, "secret")({"type": "http", "headers": headers}, receive, send))  # type: ignore[arg-type]
    return sent[0]["status"], bool(reached)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([(b"authorization", b"Bearer wrong")], 401),
        ([(b"authorization", b"secret")], 401),
        ([(b"authorization", b"Basic secret")], 401),
        ([(b"authorization", b"Bearer secret")], 200),
        ([(b"authorization", b"bearer secret")], 200),
    ],
)
def test_the_guard_lets_the_token_through(headers: list[tuple[bytes, bytes]], status: int) -> None:
    assert _ask_guarded(headers) == (status, status == 200)


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        guarded(lambda *_: None, "")  # type: ignore[arg-type, return-value]


def test_the_settings_file_is_read_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    path.write_text(settings().to_json())
    watched = SettingsFile(path)
    first = watched.changed()
    assert first is not None and first.settings.generation == 0
    assert watched.changed() is None
    fresh = tmp_path / "fresh"
    fresh.write_text(settings(generation=2).to_json())
    fresh.replace(path)
    second = watched.changed()
    assert second is not None and second.settings.generation == 2
    broken = tmp_path / "broken"
    broken.write_text(json.dumps({"model": "m"}))
    broken.replace(path)
    with pytest.raises(ValueError, match="large"):
        watched.changed()
    assert watched.changed() is None  # said once


def test_a_policy_of_another_version_is_refused_as_a_whole() -> None:
    with pytest.raises(ValueError, match="calibrate it with this version"):
        Snapshot.of(settings(lean=LEAN, strategy="Cascade", policy=policy(signal="from-the-future")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "AllLean"}, "lean: missing"),
        ({"strategy": "Cascade", "lean": LEAN}, "policy: missing"),
        ({"lean": LEAN, "dark": [LEAN]}, "more than once"),
    ],
)
def test_settings_that_do_not_fit_together(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(**changes)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="tokensPerSecond"):
        Backend(revision="a", url="http://h", tokens_per_second="0")


def test_what_a_client_wrote_cannot_break_the_headers_of_its_answer() -> None:
    """A field's name stands in x-leanmodel-scope; a server that gets a control character sends no answer at all."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    said = {"x-leanmodel-scope": "sampling: a\r\nset-cookie: b\x00\x1f\x7f\u20ac \u00e9 "}
    asyncio.run(Answer(send).start(200, JSON, said))
    assert dict(sent[0]["headers"])[b"x-leanmodel-scope"] == b"sampling: a??set-cookie: b???? \xe9"
