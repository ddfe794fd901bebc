"""The ledger's arithmetic: nothing is lost, nothing is spent twice, no window is ever overdrawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_making import LIMITS, NOON, History, Step, by_books, histories

from leanmodel_serving.ledger.books import MODEL, Books, Hold, Limit, Place, Rates, start
from leanmodel_serving.ledger.buckets import Bucket, full


def played(steps: list[Step], overrun: float = 0.0) -> tuple[Books, History]:
    books = Books()
    history = History(by_books(books), overrun)
    for step in steps:
        history.step(step)
        held = sum(hold.nano for hold in history.open)
        assert books.line(Place(MODEL, "ever", 0)).reserved == held
        excess = sum(max(0, nano - hold.nano) for hold, nano in history.settled)
        for place, line in books.lines.items():
            assert line.spent >= 0 and line.reserved >= 0
            for limit in LIMITS:
                if (limit.account, limit.span) == (place.account, place.span):
                    assert line.spent + line.reserved <= limit.nano + excess, place
    return books, history


@settings(deadline=None, max_examples=150)
@given(histories)
def test_spent_is_the_sum_of_settlements_and_no_window_is_overdrawn(steps: list[Step]) -> None:
    books, history = played(steps)
    by_account: Counter[str] = Counter()
    for hold, nano in history.settled:
        by_account[MODEL] += nano
        if hold.key:
            by_account[hold.key] += nano
    for account in (MODEL, "a", "b"):
        for span in ("hour", "day", "ever"):
            lines = [
                line for place, line in books.lines.items() if (place.account, place.span) == (account, span)
            ]
            assert sum(line.spent for line in lines) == by_account[account]
            assert sum(line.reserved for line in lines) == sum(
                hold.nano for hold in history.open if account in (MODEL, hold.key)
            )
            assert sum(line.requests for line in lines) == sum(
                account in (MODEL, hold.key) for hold, _ in history.settled
            )


@settings(deadline=None)
@given(histories, st.floats(0, 3))
def test_what_cost_more_than_was_held_is_counted_and_is_all_that_passes_a_limit(
    steps: list[Step], overrun: float
) -> None:
    books, history = played(steps, overrun)
    assert books.line(Place(MODEL, "ever", 0)).spent == sum(nano for _, nano in history.settled)


@settings(deadline=None)
@given(histories)
def test_nothing_stays_held_and_nothing_ends_twice(steps: list[Step]) -> None:
    books, history = played(steps)
    for hold in [*history.open, *history.open, *history.ended]:
        books.release(hold)
    assert all(line.reserved == 0 for line in books.lines.values())
    assert books.line(Place(MODEL, "ever", 0)).spent == sum(nano for _, nano in history.settled)
    assert all(count == 0 for count in books.active.values())


def hold(name: str, nano: int, at: float = NOON, key: str = "", tokens: int = 0) -> Hold:
    return Hold(name, "owner", key, int(at), nano, tokens)


HOUR, DAY = (Limit(MODEL, "hour", 100),), (Limit(MODEL, "day", 100),)


def test_hours_and_days_roll_over_by_the_clock_and_a_settlement_belongs_to_its_reservation() -> None:
    books, end = Books(), NOON + 3599
    late = hold("late", 100, end)
    assert books.reserve(late, HOUR, None, end + 0.9) is None
    refused = books.reserve(hold("more", 1, end), HOUR, None, end + 0.9)
    assert refused is not None and refused.why == "budget"
    # The next hour is free, though the request of the last one is still under way, and ends in this one.
    assert books.reserve(hold("next", 100, end + 1), HOUR, None, end + 1) is None
    books.settle(late, 70, 0)
    assert books.line(Place(MODEL, "hour", NOON)).spent == 70
    assert books.line(Place(MODEL, "hour", NOON + 3600)).spent == 0
    assert [left.nano for left in books.left(HOUR, end)] == [30]


def test_a_refusal_says_when_its_window_ends_and_which() -> None:
    books = Books()
    books.settle(hold("spent", 100), 100, 0)
    both = (*HOUR, *DAY)
    refused = books.reserve(hold("one", 1, NOON + 60), both, None, NOON + 60.5)
    assert refused is not None and refused.limit == DAY[0] and refused.retry_after == 43200 - 60
    refused = books.reserve(hold("one", 1, NOON + 60), HOUR, None, NOON + 60.5)
    assert refused is not None and refused.limit == HOUR[0] and refused.retry_after == 3600 - 60


def test_what_is_only_held_comes_free_soon_and_what_never_fits_is_said() -> None:
    books = Books()
    assert books.reserve(hold("held", 80), HOUR, None, NOON) is None
    soon = books.reserve(hold("waits", 60), HOUR, None, NOON)
    assert soon is not None and (soon.retry_after, soon.never) == (1, False)
    never = books.reserve(hold("huge", 101), HOUR, None, NOON)
    assert never is not None and never.never


def test_the_strict_limit_speaks_before_the_lenient_one() -> None:
    books = Books()
    books.settle(hold("spent", 100, key="k"), 100, 0)
    limits = (replace(DAY[0], lenient=True), Limit("k", "hour", 100))
    refused = books.reserve(hold("one", 1, key="k"), limits, None, NOON)
    assert refused is not None and refused.limit == limits[1]


def test_windows_begin_at_full_hours_and_days_of_utc() -> None:
    assert start("hour", NOON + 3599.999) == NOON and start("hour", NOON + 3600) == NOON + 3600
    assert start("day", NOON) % 86400 == 0 and start("ever", NOON) == 0


# ---------------------------------------------------------------- rates


def test_a_key_asks_as_fast_as_it_may_and_no_faster() -> None:
    books, rates = Books(), Rates(requests=60)
    taken = [books.reserve(hold(f"r{n}", 0, key="k"), (), rates, NOON) is None for n in range(70)]
    assert taken == [True] * 60 + [False] * 10
    assert books.reserve(hold("later", 0, NOON + 1, "k"), (), rates, NOON + 1.0) is None
    refused = books.reserve(hold("again", 0, NOON + 1, "k"), (), rates, NOON + 1.0)
    assert refused is not None and (refused.why, refused.retry_after) == ("requests", 1)


def test_tokens_count_as_they_are_used_and_a_long_answer_is_owed() -> None:
    books, rates = Books(), Rates(tokens=600)
    first = hold("first", 0, key="k", tokens=100)
    assert books.reserve(first, (), rates, NOON) is None
    books.settle(first, 0, 1100, 600)
    refused = books.reserve(hold("second", 0, key="k", tokens=100), (), rates, NOON)
    assert refused is not None and (refused.why, refused.retry_after) == ("tokens", 60)
    assert books.reserve(hold("second", 0, NOON + 60, "k", 100), (), rates, NOON + 60.0) is None


def test_a_request_longer_than_the_bucket_waits_for_a_full_one_and_not_for_ever() -> None:
    books = Books()
    assert books.reserve(hold("long", 0, key="k", tokens=5000), (), Rates(tokens=600), NOON) is None


def test_as_many_are_under_way_as_may_be() -> None:
    books, rates = Books(), Rates(concurrency=2)
    held = [hold(f"r{n}", 0, key="k") for n in range(3)]
    assert [books.reserve(one, (), rates, NOON) is None for one in held] == [True, True, False]
    books.release(held[0])
    books.release(held[0])
    assert books.reserve(held[2], (), rates, NOON) is None
    refused = books.reserve(hold("r4", 0, key="k"), (), rates, NOON)
    assert refused is not None and refused.why == "concurrency"


def test_a_request_that_is_refused_takes_nothing() -> None:
    books, rates = Books(), Rates(requests=1, tokens=10)
    assert books.reserve(hold("dear", 101, key="k", tokens=5), HOUR, rates, NOON) is not None
    assert books.reserve(hold("cheap", 1, key="k", tokens=5), HOUR, rates, NOON) is None


@settings(deadline=None)
@given(st.integers(1, 10**6), st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), max_size=30))
def test_over_any_time_no_more_comes_out_of_a_bucket_than_its_size_and_what_flowed_in(
    per_minute: int, asks: list[tuple[float, float]]
) -> None:
    bucket, out, now = full(per_minute, 0.0), 0.0, 0.0
    for passed, amount in asks:
        now += passed
        bucket = bucket.filled(per_minute, now)
        if bucket.wait(amount, per_minute) == 0 and amount <= per_minute:
            bucket, out = bucket.taken(amount), out + amount
    assert out <= per_minute + per_minute * now / 60 + 1e-3


@settings(deadline=None)
@given(st.floats(-100, 100), st.integers(1, 1000), st.floats(0, 1000))
def test_after_the_wait_there_is_enough(level: float, per_minute: int, amount: float) -> None:
    bucket = Bucket(min(level, per_minute), 0.0)
    later = bucket.filled(per_minute, bucket.wait(amount, per_minute))
    assert later.wait(amount, per_minute) <= 1e-6


@pytest.mark.parametrize("back", [0.0, -5.0, -10_000.0])
def test_a_clock_that_goes_back_fills_nothing(back: float) -> None:
    empty = Bucket(0.0, 100.0)
    assert empty.filled(60, 100.0 + back) == empty
