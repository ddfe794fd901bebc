"""Halving: what it returns passes and is the cheapest that was seen to, whatever the candidates are like."""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_compression.search.halving import RUNGS, SHARES, Course, Entrant, Halving

BUDGET = 1000
RETAIN = 0.9


def entrants(*sizes: int, trains: bool = True) -> list[Entrant]:
    return [Entrant(f"candidate-{at}", size, trains) for at, size in enumerate(sizes)]


def walk(
    who: list[Entrant], kept: list[list[float]], retain: float = RETAIN, slow: frozenset[int] = frozenset()
) -> tuple[Course, Counter[tuple[int, int]]]:
    asked: Counter[tuple[int, int]] = Counter()

    def ask(at: int, rung: int) -> float | Literal["OverBudget"]:
        asked[at, rung] += 1
        if at in slow:
            return "OverBudget"
        return kept[at][rung if who[at].trains else 0]

    return Halving(who, retain, BUDGET, ask).run(), asked


SOME = st.lists(
    st.tuples(
        st.integers(1, BUDGET),
        st.booleans(),
        st.lists(st.floats(0, 1.2) | st.just(math.nan), min_size=RUNGS, max_size=RUNGS),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(SOME)
def test_what_is_chosen_passes_and_nothing_cheaper_was_seen_to(
    some: list[tuple[int, bool, list[float]]],
) -> None:
    who = [Entrant(f"candidate-{at}", size, trains) for at, (size, trains, _) in enumerate(some)]
    kept = [values for *_, values in some]
    course, asked = walk(who, kept)
    assert max(asked.values(), default=0) <= 1

    def final(at: int) -> int:
        return RUNGS - 1 if who[at].trains else 0

    seen = {at for at, rung in asked if rung == final(at)}
    passing = {at for at in seen if kept[at][final(at)] >= RETAIN}
    if course.chosen is None:
        # Then every candidate was trained to the end or broke on the way, and none passed.
        assert not passing
        assert all(at in seen or course.ends[at] == "Broken" for at in range(len(who)))
    else:
        assert course.chosen in passing
        assert who[course.chosen].bytes == min(who[at].bytes for at in passing)
    for at, end in enumerate(course.ends):
        assert (end == "Chosen") == (at == course.chosen)
        assert end != "Passed" or at in passing
        assert end != "Failed" or (at in seen and at not in passing)
        assert end != "Dearer" or (course.chosen is not None and who[at].bytes >= who[course.chosen].bytes)
        rungs = sorted(rung for asked_at, rung in asked if asked_at == at)
        assert course.last[at] == max(rungs, default=-1)


@settings(max_examples=100, deadline=None)
@given(SOME, st.sets(st.integers(0, 19)))
def test_what_is_above_the_budget_is_asked_once_and_never_chosen(
    some: list[tuple[int, bool, list[float]]], slow: set[int]
) -> None:
    who = [Entrant(f"candidate-{at}", size, trains) for at, (size, trains, _) in enumerate(some)]
    course, asked = walk(who, [values for *_, values in some], slow=frozenset(slow))
    for at, end in enumerate(course.ends):
        rungs = [rung for asked_at, rung in asked if asked_at == at]
        assert (end == "OverBudget") == (at in slow and bool(rungs))
        assert at not in slow or rungs in ([], [0])
    assert course.chosen not in slow and course.nearest not in slow
    # The others go as if it had not been there.
    rest = [at for at in range(len(who)) if at not in slow]
    if rest:
        alone, _ = walk([who[at] for at in rest], [some[at][2] for at in rest])
        assert course.chosen == (None if alone.chosen is None else rest[alone.chosen])


@settings(max_examples=50, deadline=None)
@given(SOME)
def test_it_goes_the_same_way_twice(some: list[tuple[int, bool, list[float]]]) -> None:
    who = [Entrant(f"candidate-{at}", size, trains) for at, (size, trains, _) in enumerate(some)]
    kept = [values for *_, values in some]
    assert walk(who, kept) == walk(who, kept)


def test_it_takes_the_cheapest_on_its_way_and_trains_few_to_the_end() -> None:
    sizes = [100 * (at + 1) for at in range(8)]
    # Little training hurts all alike; with all of it the three smallest still fail.
    kept = [[0.5 * whole, 0.8 * whole, whole] for whole in (0.3, 0.5, 0.7, 0.93, 0.95, 0.97, 0.98, 1.0)]
    course, asked = walk(entrants(*sizes), kept)
    assert course.chosen == 3
    cost = sum(SHARES[rung] * count for (_, rung), count in asked.items())
    assert cost == 8 / 16 + 2 / 4 + 1


def test_what_needs_no_training_and_passes_ends_all_that_is_dearer() -> None:
    who = [Entrant("small", 100, True), Entrant("plain", 200, False), *entrants(300, 400, 500)]
    course, asked = walk(who, [[0.1, 0.1, 0.1], [0.95] * 3, *[[1.0] * 3] * 3])
    assert course.chosen == 1 and course.ends == ["Failed", "Chosen", "Dearer", "Dearer", "Dearer"]
    assert {at for at, _ in asked} == {0, 1}


def test_one_that_was_stopped_is_trained_after_all_where_no_finalist_passes() -> None:
    # The one that learns fastest is not the one that ends best.
    kept = [[0.5, 0.5, 0.5], [0.4, 0.4, 0.95], [0.3, 0.3, 0.3]]
    course, _ = walk(entrants(100, 200, 300), kept)
    assert course.chosen == 1


@pytest.mark.parametrize(
    ("kept", "nearest"), [([[0.1, 0.2, 0.3], [0.1, 0.2, 0.5]], 1), ([[math.nan] * 3] * 2, None)]
)
def test_none_passes_and_the_nearest_is_named(kept: list[list[float]], nearest: int | None) -> None:
    course, _ = walk(entrants(100, 200), kept)
    assert course.chosen is None and course.nearest == nearest
