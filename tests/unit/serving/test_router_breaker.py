"""Breaker and budget of retries, whatever happens in whatever order: pure, with a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.router import Resilience
from leanmodel_serving.router.breaker import CLOSED, Breaker, RetryBudget, State, ask, saw

RULES = Resilience(failures=3, open_seconds=5.0)


@pytest.mark.parametrize(
    ("state", "event", "now", "following"),
    [
        (CLOSED, "ask", 0.0, (True, CLOSED)),
        (CLOSED, "fails", 0.0, State("closed", 1)),
        (State("closed", 1), "well", 0.0, CLOSED),
        (State("closed", 2), "fails", 10.0, State("open", until=15.0)),
        (State("open", until=15.0), "ask", 14.9, (False, State("open", until=15.0))),
        (State("open", until=15.0), "ask", 15.0, (True, State("half-open", until=20.0))),
        # What was sent before it opened tells nothing of now.
        (State("open", until=15.0), "well", 12.0, State("open", until=15.0)),
        (State("open", until=15.0), "fails", 12.0, State("open", until=15.0)),
        (State("half-open", until=20.0), "ask", 16.0, (False, State("half-open", until=20.0))),
        (State("half-open", until=20.0), "well", 16.0, CLOSED),
        (State("half-open", until=20.0), "fails", 16.0, State("open", until=21.0)),
        # The one that tried was never heard of again.
        (State("half-open", until=20.0), "ask", 20.0, (True, State("half-open", until=25.0))),
    ],
)
def test_from_state_to_state(state: State, event: str, now: float, following: object) -> None:
    assert (
        ask(state, RULES, now) if event == "ask" else saw(state, RULES, event == "well", now)
    ) == following


EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["ask", "well", "fails"])), min_size=1, max_size=60
)


@given(EVENTS, st.integers(1, 5), st.integers(1, 10))
def test_what_always_holds(events: list[tuple[int, str]], failures: int, rest: int) -> None:
    clock, phases = [100.0], []
    breaker = Breaker(Resilience(failures=failures, open_seconds=rest), lambda: clock[0], phases.append)
    in_a_row, last_let_through = 0, -1e9
    for step, event in events:
        clock[0] += step
        before = breaker.state
        if event == "ask":
            allowed = breaker.allows()
            assert allowed or breaker.rests() > 0, "who is sent away is told for how long"
            if before.phase != "closed" and allowed:
                assert clock[0] - last_let_through >= rest or before.phase == "open"
                assert clock[0] >= before.until
            if allowed:
                last_let_through = clock[0]
        else:
            breaker.saw(event == "well")
            in_a_row = 0 if event == "well" else in_a_row + 1
            if before.phase == "closed":
                opens = event == "fails" and before.failures + 1 >= failures
                assert (breaker.state.phase == "open") == opens
                assert breaker.state.phase == "closed" or in_a_row >= failures
    assert breaker.rests() <= rest
    # It never stays away for ever: once it has rested, somebody may try, and one who does well closes it.
    clock[0] += rest
    assert breaker.allows()
    breaker.saw(True)
    assert breaker.state == CLOSED and all(
        one != other for one, other in zip(phases, phases[1:], strict=False)
    )


@given(st.floats(0.0, 1.0), st.lists(st.booleans(), max_size=400))
def test_second_tries_are_a_share_of_the_requests(share: float, fails: list[bool]) -> None:
    budget, again = RetryBudget(reserve=10.0), 0
    for fail in fails:
        budget.earned(share)
        again += fail and budget.take(share)
    assert again <= 10 + share * len(fails) + 1e-6
    if share > 0:
        assert again >= min(sum(fails), 10), "the reserve is for everybody"
    else:
        assert again == 0
