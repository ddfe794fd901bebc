"""Where a request starts: hard rules, then the policy of either version, then what its headers wish."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies_made import LENGTH_AT, certificate, made

from leanmodel_api.policy import Scope
from leanmodel_api.router import Backend, RouterSettings
from leanmodel_api.routing_policy import GroupRule
from leanmodel_api.serving import Price
from leanmodel_serving.router.ask import Ask, parse_ask
from leanmodel_serving.router.conversations import Pins, conversation
from leanmodel_serving.router.errors import ApiError
from leanmodel_serving.router.overrides import LEAST, MOST, NO_WISHES, ROUTE, Wishes, wishes
from leanmodel_serving.router.route import SCOPE_KINDS, choose, scope_kind
from leanmodel_serving.router.snapshot import Snapshot

LARGE = Backend(revision="large-1", url="http://127.0.0.1:1/engines/large-1")
LEAN = Backend(revision="lean-1", url="http://127.0.0.1:1/engines/lean-1", max_model_length=1000)
SHORT, LONG = "one two", " ".join(["word"] * 100)


def state(kind: str, **changes: Any) -> Snapshot:
    settings = {"model": "m", "large": LARGE, "lean": LEAN, "strategy": "Cascade", "policy": made(kind)}
    return Snapshot.of(RouterSettings(**{**settings, **changes}))


def ask(prompt: Any = SHORT, **body: Any) -> Ask:
    return Ask("completions", {"prompt": prompt, **body}, False, False)


def chat(*turns: tuple[str, str], **body: Any) -> Ask:
    return Ask("chat", {"messages": [{"role": r, "content": c} for r, c in turns], **body}, False, False)


def sure(prompt: str) -> float:
    return 1 / (1 + math.exp(math.log1p(len(prompt.split())) - LENGTH_AT))


@pytest.mark.parametrize(
    ("kind", "prompt", "way"),
    [
        ("predictive", SHORT, "lean"), ("predictive", LONG, "large"), ("predictive", [1, 2], "large"),
        ("combined", SHORT, "try"), ("combined", LONG, "large"), ("cascade", SHORT, "try"), ("cascade", LONG, "try"),
        ("all-lean", LONG, "lean"), ("all-large", SHORT, "large"),
    ],
)  # fmt: skip
def test_each_kind_of_policy_starts_its_own_way(kind: str, prompt: Any, way: str) -> None:
    assert choose(state(kind), ask(prompt)).way == way


def test_settings_with_a_policy_of_version_2_survive_their_file() -> None:
    before = RouterSettings(model="m", large=LARGE, lean=LEAN, strategy="Cascade", policy=made("combined"))
    after = RouterSettings.model_validate_json(before.to_json())
    assert after == before and after.policy is not None and after.policy.version == "2"
    assert Snapshot.of(after).policy == made("combined").digest.removeprefix("sha256:")[:12]


def test_the_prompts_confidence_is_told_and_counted() -> None:
    assert choose(state("predictive"), ask(SHORT)).score == pytest.approx(sure(SHORT))
    assert choose(state("predictive"), ask(LONG)).score == pytest.approx(sure(LONG))
    assert choose(state("combined"), ask(LONG)).score == -1.0
    assert choose(state("cascade"), ask(SHORT)).score is None


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (ask(tools=[{"type": "function"}]), "tools"),
        (Ask("chat", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, False, False), "images"),
        (ask("x" * 4004), "context"),
        (ask("short", max_tokens=1000), "context"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("policy", ["cascade", "predictive", "combined", "all-lean"])
def test_hard_rules_come_before_any_policy(request_: Ask, kind: str, policy: str) -> None:
    route = choose(state(policy), request_)
    assert (route.way, route.reason, scope_kind(route.scope)) == ("large", "scope", kind)
    assert kind in SCOPE_KINDS and not route.watched


def test_an_alarm_sends_all_large_and_says_which() -> None:
    for kind in ("cascade", "predictive", "combined", "all-lean"):
        route = choose(state(kind), ask(), alarms={"score-drift": "…", "label-free": "…"})
        assert (route.way, route.reason, route.alarm) == ("large", "alarm", "label-free,score-drift")


# ---------------------------------------------------------------- conversations


def test_a_conversation_that_went_large_stays_there_and_a_first_turn_is_free() -> None:
    pins = Pins()
    first = chat(("system", "be brief"), ("user", "hello"))
    later = chat(("system", "be brief"), ("user", "hello"), ("assistant", "hi"), ("user", "more"))
    other = chat(("system", "be brief"), ("user", "hallo"), ("assistant", "hi"), ("user", "more"))
    assert not pins.holds(conversation(later, ""))
    pins.pin(conversation(first, ""))
    assert pins.holds(conversation(later, "")) and not pins.holds(conversation(other, ""))
    assert not pins.holds(conversation(first, ""))  # asked again, it is another conversation's first turn
    assert choose(state("all-lean"), later, pinned=True).reason == "conversation"


def test_a_named_session_is_one_conversation_on_both_endpoints() -> None:
    pins = Pins()
    pins.pin(conversation(ask("a"), "s-1"))
    assert pins.holds(conversation(ask("b"), "s-1")) and pins.holds(conversation(chat(("user", "c")), "s-1"))
    assert not pins.holds(conversation(ask("a"), "s-2")) and not pins.holds(conversation(ask("a"), ""))


turns = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=5)), min_size=1, max_size=6
)


@settings(deadline=None)
@given(st.lists(turns, max_size=8), turns)
def test_no_pin_ever_leads_to_the_lean_model(before: list[Any], now: list[Any]) -> None:
    pins = Pins()
    for one in before:
        pins.pin(conversation(chat(*one), ""))
    pinned = pins.holds(conversation(chat(*now), ""))
    for kind in ("all-lean", "cascade", "predictive", "all-large"):
        free = choose(state(kind), chat(*now)).way
        assert choose(state(kind), chat(*now), pinned=pinned).way == ("large" if pinned else free)


# ---------------------------------------------------------------- overrides


def test_headers_are_refused_where_the_manifest_does_not_allow_them() -> None:
    assert wishes({}, allowed=False, has_lean=True) == NO_WISHES
    for name in (ROUTE, MOST, LEAST):
        with pytest.raises(ApiError) as refused:
            wishes({name: "large"}, allowed=False, has_lean=True)
        assert refused.value.status == 403 and "spec.routing.overrides" in refused.value.message


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({ROUTE: "small"}, 400), ({LEAST: "much"}, 400), ({LEAST: "1.5"}, 400), ({LEAST: "nan"}, 400),
        ({MOST: "-1"}, 400), ({MOST: "Infinity"}, 400), ({MOST: ""}, 400),
    ],
)  # fmt: skip
def test_what_is_no_wish_is_refused_by_name(headers: dict[str, str], status: int) -> None:
    with pytest.raises(ApiError) as refused:
        wishes(headers, allowed=True, has_lean=True)
    assert refused.value.status == status and refused.value.param == next(iter(headers))


def test_a_route_is_taken_as_wished_and_promises_nothing_for_the_lean_model() -> None:
    large = choose(state("all-lean"), ask(), wishes({ROUTE: "large"}, True, True))
    assert (large.way, large.reason) == ("large", "override")
    lean = choose(state("all-large"), ask(), wishes({ROUTE: "lean"}, True, True))
    assert (lean.way, lean.reason, lean.promised) == ("lean", "override", False)
    with pytest.raises(ApiError, match="no lean model"):
        wishes({ROUTE: "lean"}, True, has_lean=False)


def test_a_wish_for_confidence_only_ever_raises_the_bar() -> None:
    low, high = Wishes(min_confidence=0.01), Wishes(min_confidence=0.999)
    assert choose(state("predictive"), ask(LONG), low).way == "large"
    assert choose(state("predictive"), ask(SHORT), low).way == "lean"
    assert choose(state("predictive"), ask(SHORT), high).way == "large"
    assert choose(state("all-lean"), ask(SHORT), high).way == "large"
    route = choose(state("cascade"), ask(SHORT), high)
    assert (route.way, route.minimum, route.watched) == ("try", 0.999, False)


DEAR, CHEAP = (
    Price(input_usd_per_million_tokens=price, output_usd_per_million_tokens=price) for price in ("10", "1")
)


@settings(deadline=None)
@given(
    st.integers(0, 10**7),
    st.sampled_from(["cascade", "predictive", "all-lean", "all-large"]),
    st.integers(1, 50),
)
def test_no_request_can_cost_more_than_it_wishes(most: int, kind: str, tokens: int) -> None:
    priced = state(
        kind, large=LARGE.model_copy(update={"price": DEAR}), lean=LEAN.model_copy(update={"price": CHEAP})
    )
    request = ask("ä" * 20, max_tokens=tokens)
    try:
        route = choose(priced, request, Wishes(max_nano=most))
    except ApiError as error:
        assert error.code == "cost_limit" and most < (40 + 64 + tokens) * 1000
        return
    # No tokenizer makes more tokens of a text than it has bytes.
    worst = (40 + tokens) * {"large": 10_000, "lean": 1000, "try": 11_000}[route.way]
    assert worst <= most
    assert route.promised or route.way == "lean"


@pytest.mark.parametrize(
    "body", [{}, {"max_tokens": "many"}, {"max_tokens": 5, "n": 10**400}, {"max_tokens": 10**400}]
)
def test_a_cost_without_a_bound_is_refused(body: dict[str, Any]) -> None:
    priced = state("cascade", large=LARGE.model_copy(update={"price": DEAR}))
    with pytest.raises(ApiError) as refused:
        choose(priced, ask(**body), Wishes(max_nano=10**9))
    assert refused.value.code == "cost_unbounded"


def test_a_cost_beyond_all_measure_is_told() -> None:
    priced = state(
        "cascade",
        large=LARGE.model_copy(update={"price": DEAR}),
        lean=LEAN.model_copy(update={"price": DEAR}),
    )
    with pytest.raises(ApiError, match="may cost [0-9]{300}") as refused:
        choose(priced, ask(max_tokens=10**305, n=10**300), Wishes(max_nano=10**9))
    assert refused.value.code == "cost_limit"


def test_the_certificates_own_limit_bounds_the_cost() -> None:
    scope = Scope(max_tokens=4)
    priced = state(
        "cascade", policy=made("cascade", scope=scope),
        large=LARGE.model_copy(update={"price": DEAR}), lean=LEAN.model_copy(update={"price": CHEAP}),
    )  # fmt: skip
    assert choose(priced, ask("a"), Wishes(max_nano=10**9)).way == "try"


def test_a_parsed_chat_has_its_conversation() -> None:
    raw = b'{"model": "m", "messages": [{"role": "user", "content": "a"}]}'
    found = conversation(parse_ask(raw, "chat", "m"), "")
    assert found.key is not None and not found.later and not found.spoken


def test_a_request_goes_by_its_groups_own_rule() -> None:
    def rule(kind: Any, threshold: float) -> GroupRule:
        return GroupRule(kind=kind, threshold=threshold, certificate=certificate(), expected_large_share=0.5)

    policy = made("all-large", groups={"chat": rule("cascade", 0.2), "code": rule("cascade", 0.9)})
    snapshot = state("cascade", policy=policy)
    assert snapshot.decider is not None
    for group, way, accepted in (
        ("chat", "try", True),
        ("code", "try", False),
        ("", "large", False),
        ("new", "large", False),
    ):
        route = choose(snapshot, ask(), group=group)
        assert (route.way, route.group) == (way, group if way == "try" else "")
        assert snapshot.decider.accept(0.5, route.group) is accepted
